"""Give a sandbox files of its own of its volumes, and bring changes to and fro as Modal does.

A sandbox starts with what was committed then. Its changes are committed at its end, or when it asks
for that; what others have committed it sees when it reloads. Of a file that several have changed,
the last one to commit wins.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from modalrun.localmodal.storage.paths import StateDir
from modalrun.localmodal.storage.tree import Tree, changes, largest_copied, signature

log = logging.getLogger(__name__)

_TICK = 0.02
"""Seconds in which two changes of a file may get the same time: clocks of file systems tick."""


@dataclass(frozen=True)
class Mount:
    """A volume in a sandbox.

    `nested` has the paths in it at which other volumes are mounted. What is below them stays out.
    """

    volume_id: str
    path: str
    sub_path: str = ""
    read_only: bool = False
    nested: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The folder of the volumes' that is mounted."""
        return f"{self.volume_id}/{self.sub_path}"


class VolumeTree:
    """The files that a sandbox has of a volume.

    Attributes:
        mount: Where and how the volume is mounted.
        folder: The files.
        changed_at_once: Paths of linked files whose content was changed, which all sandboxes saw.
    """

    def __init__(self, state: StateDir, mount: Mount, folder: Path) -> None:
        self.mount = mount
        self.folder = folder
        self._own = Tree(folder, state.uploads)
        self._committed = Tree(state.volumes / mount.folder, state.uploads)
        self._record = folder.with_suffix(".json")
        # The signatures of files that are the same on both sides.
        self._known: dict[str, str] = {}
        self.changed_at_once: set[str] = set()

    def open(self) -> None:
        """Start with the committed files. Raises OSError."""
        self.folder.mkdir(parents=True, mode=0o700)
        for path in self.mount.nested:
            with self._own.open(path, create=True):
                pass
        self._fetch()
        self._known |= {path: signature(s) for path, s in self._scan(self._own).items()}
        self._save()

    def commit(self, *, last: bool = False) -> None:
        """Bring changes to the volume, unless it is mounted read-only or deleted.

        Args:
            last: Whether the files are given up; then nothing is copied.

        Raises:
            OSError: Not everything is committed.
        """
        if self.mount.read_only or not self._committed.root.is_dir():
            return
        changed, gone = changes(self._scan(self._own), self._known)
        for item in changed:
            if item.status.st_nlink > 1 and stat.S_ISREG(item.status.st_mode):
                there = self._committed.find(item.target)
                if there is not None and os.path.samestat(there, item.status):
                    self.changed_at_once.add(f"{self.mount.path}/{item.source}")
        brought = self._committed.bring(self._own, changed, move=last)
        self._forget(self._committed, gone)
        self._known |= brought
        if not last:
            self._save()
            # What the caller writes next differs in its time.
            time.sleep(_TICK if changed else 0)

    def reload(self) -> None:
        """Commit, and fetch what others have committed. Raises OSError."""
        self.commit()
        if self._committed.root.is_dir():
            self._fetch()
            self._save()

    def used(self, held: Collection[tuple[int, int]]) -> str:
        """Return the first path whose device and inode are held; empty for none."""
        found = {"": self.folder.stat(), **self._scan(self._own)}
        paths = (path for path, s in found.items() if (s.st_dev, s.st_ino) in held)
        return next((f"{self.mount.path}/{path}".rstrip("/") for path in paths), "")

    def _fetch(self) -> None:
        there = self._scan(self._committed)
        changed, gone = changes(there, self._known)
        copied = largest_copied(item.status.st_size for item in changed)
        self._known |= self._own.bring(self._committed, changed, copied=copied)
        # The folders of mount points are in no volume.
        needed = tuple(f"{path}/" for path in self.mount.nested)
        self._forget(self._own, [p for p in gone if not any(n.startswith(f"{p}/") for n in needed)])

    def _scan(self, tree: Tree) -> dict[str, os.stat_result]:
        return tree.scan(skip=self.mount.nested)

    def _forget(self, tree: Tree, paths: Sequence[str]) -> None:
        for path in paths:
            # Already gone, or a folder into which others have put something.
            with suppress(OSError):
                tree.remove(path, recursive=False)
            del self._known[path]

    def _save(self) -> None:
        """Note what is the same, for a server after one that was killed."""
        self._record.write_text(json.dumps([asdict(self.mount), self._known]), encoding="utf-8")

    @classmethod
    def load(cls, state: StateDir, record: Path) -> VolumeTree:
        """Return the files that a sandbox of a killed server has left. Raises ValueError."""
        mount, known = json.loads(record.read_text(encoding="utf-8"))
        mount["nested"] = tuple(mount["nested"])
        tree = cls(state, Mount(**mount), record.with_suffix(""))
        tree._known = known
        return tree


def commit_left(state: StateDir) -> None:
    """Commit what the sandboxes of a killed server have changed in their volumes."""
    for record in (state.root / "sandboxes").glob("*/volumes/*.json"):
        try:
            VolumeTree.load(state, record).commit(last=True)
        except (OSError, ValueError) as error:  # noqa: PERF203 (one must not prevent the others)
            log.error("%s is not committed: %s", record, error)


class MountedVolumes:
    """The volumes of one sandbox.

    Attributes:
        ids: Those of the volumes.
        folders: The folders that are mounted, by mount path.
        read_only: The mount paths of those that the sandbox may not change.
    """

    def __init__(
        self,
        state: StateDir,
        sandbox_id: str,
        mounts: Sequence[Mount],
        lock: Callable[[str], asyncio.Lock],
        *,
        shared: bool,
    ) -> None:
        """
        Args:
            lock: Returns the lock of a volume's committed files.
            shared: Whether sandboxes change the committed files themselves.
        """
        own = state.sandbox(sandbox_id) / "volumes"
        # A mount point in another volume comes after that one.
        self._trees = [
            VolumeTree(state, mount, own / mount.volume_id)
            for mount in sorted(mounts, key=lambda mount: mount.path)
        ]
        self._lock = lock
        self.ids = frozenset(mount.volume_id for mount in mounts)
        self._opened: list[VolumeTree] = []
        self.read_only = frozenset(mount.path for mount in mounts if mount.read_only)
        self.folders = {
            tree.mount.path: state.volumes / tree.mount.folder if shared else tree.folder
            for tree in self._trees
        }
        if shared:
            self._trees = []

    async def open(self) -> None:
        """Give the sandbox the committed files. Raises OSError."""
        for tree in self._trees:
            async with self._lock(tree.mount.volume_id):
                await asyncio.to_thread(tree.open)
            self._opened.append(tree)

    async def commit(self, volume_id: str = "") -> None:
        """Commit one volume, or all. Raises OSError."""
        await self._each(volume_id, VolumeTree.commit)

    @property
    def changed_at_once(self) -> list[str]:
        """The paths of linked files that were changed in place."""
        return sorted(path for tree in self._opened for path in tree.changed_at_once)

    async def close(self) -> OSError | None:
        """Commit all and give the files up; return why not all is committed."""
        problem = None
        for tree in self._opened:
            try:
                async with self._lock(tree.mount.volume_id):
                    await asyncio.to_thread(tree.commit, last=True)
            except OSError as error:  # noqa: PERF203 (one must not prevent the others)
                log.error("%s is not committed: %s", tree.folder, error)
                problem = error
        return problem

    async def used(self, held: Collection[tuple[int, int]], volume_id: str = "") -> str:
        """Return a path in one volume, or all, whose device and inode are held; empty for none."""
        paths = [await asyncio.to_thread(tree.used, held) for tree in self._chosen(volume_id)]
        return next(filter(None, paths), "")

    async def reload(self, volume_id: str = "") -> None:
        """Commit one volume, or all, and fetch what others have committed. Raises OSError."""
        await self._each(volume_id, VolumeTree.reload)

    async def _each(self, volume_id: str, do: Callable[[VolumeTree], None]) -> None:
        for tree in self._chosen(volume_id):
            async with self._lock(tree.mount.volume_id):
                await asyncio.to_thread(do, tree)

    def _chosen(self, volume_id: str) -> list[VolumeTree]:
        return [tree for tree in self._opened if volume_id in ("", tree.mount.volume_id)]
