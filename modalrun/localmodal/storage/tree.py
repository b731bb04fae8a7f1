"""Read and change folders that sandboxes fill, without following a link out of them.

A path is relative, with `/` between its parts; "" is the folder itself.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LONGEST_PATH = 4096
_COPIED = 64 * 1024 * 1024
"""Bytes that `Tree.bring` copies, the smallest files first; it links the others."""
_CHUNK = 1024 * 1024
_FICLONE = 0x40049409
"""Linux: share the blocks of a file until one of the two is written (`ioctl_ficlone(2)`)."""


class Item(NamedTuple):
    """An entry to bring from one tree into another."""

    source: str
    target: str
    status: os.stat_result


def relative(path: str) -> str:
    """Normalize the path of a client. Raises ValueError if it leaves the tree."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path:
        raise ValueError(f"'{path}' leaves the volume")
    return "/".join(parts)


def split(path: str) -> tuple[str, str]:
    """Return the folder and the name of a path."""
    folder, _, name = path.rpartition("/")
    return folder, name


def signature(status: os.stat_result) -> str:
    """Return what differs when an entry has been changed."""
    kind = stat.S_IFMT(status.st_mode) >> 12
    if stat.S_ISDIR(status.st_mode):
        return f"{kind}"
    return f"{kind} {status.st_mode & 0o777:o} {status.st_size} {status.st_mtime_ns}"


def largest_copied(sizes: Iterable[int]) -> float:
    """Return the size up to which files of these sizes are copied rather than linked."""
    total = 0
    for size in sorted(sizes):
        total += size
        if total > _COPIED:
            return size - 1
    return math.inf


class Tree:
    """A folder, and another one on the same disk for files that are not complete."""

    def __init__(self, root: Path, staging: Path) -> None:
        self.root = root
        self._staging = staging

    @contextmanager
    def open(self, folder: str, *, create: bool = False) -> Iterator[int]:
        """Open a folder of the tree as a descriptor. Raises OSError; for a link, too."""
        descriptor = _allowed(self.root, _FOLDER, 0o700)
        try:
            for part in filter(None, folder.split("/")):
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=descriptor)
                inner = _allowed(part, _FOLDER, 0o700, descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def read(self, path: str) -> BinaryIO:
        """Open a file for reading. Raises OSError; for a link, too."""
        folder, name = split(path)
        with self.open(folder) as descriptor:
            return _open(name, descriptor)

    def status(self, path: str) -> os.stat_result:
        """Return what a path is. Raises OSError."""
        folder, name = split(path)
        with self.open(folder) as descriptor:
            return os.stat(name or ".", dir_fd=descriptor, follow_symlinks=False)

    def find(self, path: str) -> os.stat_result | None:
        """Return what a path is; None if there is nothing. Raises OSError."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return self.status(path)
        return None

    def scan(
        self, start: str = "", *, recursive: bool = True, skip: Collection[str] = ()
    ) -> dict[str, os.stat_result]:
        """Return the entries below a folder: those of one together, a folder before its own.

        Args:
            skip: Paths to leave out, with what is below them.
        """
        found: dict[str, os.stat_result] = {}
        folders = [start]
        while folders:
            folder = folders.pop()
            if len(folder) > _LONGEST_PATH:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), folder[:80])
            try:
                with self.open(folder) as descriptor, os.scandir(descriptor) as entries:
                    for entry in entries:
                        path = f"{folder}/{entry.name}" if folder else entry.name
                        with suppress(FileNotFoundError):
                            if path not in skip:
                                found[path] = entry.stat(follow_symlinks=False)
                                if recursive and stat.S_ISDIR(found[path].st_mode):
                                    folders.append(path)
            except (FileNotFoundError, NotADirectoryError):
                # A sandbox has deleted it meanwhile.
                if folder == start:
                    raise
        return found

    def bring(
        self, source: Tree, items: Iterable[Item], *, move: bool = False, copied: float = math.inf
    ) -> dict[str, str]:
        """Put entries of another tree into this one; each file appears as a whole.

        Args:
            source: The other tree.
            items: Its entries, those of one folder together and a folder before its own.
            move: Whether the other tree is given up.
            copied: The size up to which a file is copied; a larger one is linked, so that a change
                of its content in one tree is one in both. All are cloned where the disk can.

        Returns:
            The signatures of what was brought, by the paths in the other tree.
        """
        brought: dict[str, str] = {}
        for (folder, into), group in groupby(
            items, key=lambda item: (split(item.source)[0], split(item.target)[0])
        ):
            with ExitStack() as stack:
                try:
                    from_ = stack.enter_context(source.open(folder))
                except (FileNotFoundError, NotADirectoryError):
                    # A sandbox has deleted it meanwhile.
                    continue
                to = stack.enter_context(self.open(into, create=True))
                for item in group:
                    name, target = split(item.source)[1], split(item.target)[1]
                    status, kind = item.status, stat.S_IFMT(item.status.st_mode)
                    with suppress(FileNotFoundError):
                        if kind == stat.S_IFDIR:
                            self._make_folder(target, to)
                        elif kind not in (stat.S_IFREG, stat.S_IFLNK):
                            continue
                        elif move:
                            if kind == stat.S_IFREG:
                                # Whoever reads it next finds no rights that must be given.
                                _open(name, from_).close()
                            self._place(name, target, to, from_=from_)
                        else:
                            with self._stage() as staged:
                                link = status.st_size > copied
                                status = _duplicate(name, from_, staged, link=link)
                                self._place(staged, target, to)
                        brought[item.source] = signature(status)
        return brought

    def put(self, contents: Iterable[tuple[int, Path]], size: int, mode: int, path: str) -> None:
        """Put a new file with contents at offsets, and zeros elsewhere."""
        folder, name = split(path)
        with self._stage() as staged:
            with staged.open("xb") as file:
                for offset, content in contents:
                    file.seek(offset)
                    with content.open("rb") as part:
                        if offset or not _clone(part, file):
                            shutil.copyfileobj(part, file, _CHUNK)
                file.truncate(size)
                os.fchmod(file.fileno(), (mode & 0o777) or 0o644)
            with self.open(folder, create=True) as to:
                self._place(staged, name, to)

    def remove(self, path: str, *, recursive: bool = True) -> None:
        """Remove a file, a link or a folder; with `recursive` also one that is not empty."""
        folder, name = split(path)
        with self.open(folder) as descriptor:
            if recursive:
                self._discard(name, descriptor)
            elif stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                os.rmdir(name, dir_fd=descriptor)
            else:
                os.unlink(name, dir_fd=descriptor)

    def _staged(self) -> Path:
        """Return a new name of an upload (see `Mounts.forget`); `new_id` would take longer."""
        return self._staging / f"up-{secrets.token_hex(11)}"

    @contextmanager
    def _stage(self) -> Iterator[Path]:
        staged = self._staged()
        try:
            yield staged
        finally:
            # It was not placed, or both were links of one file.
            staged.unlink(missing_ok=True)

    def _make_folder(self, name: str, to: int) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=to)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=to, follow_symlinks=False).st_mode):
                self._discard(name, to)
                os.mkdir(name, 0o755, dir_fd=to)

    def _place(self, source: str | Path, name: str, to: int, from_: int | None = None) -> None:
        try:
            os.rename(source, name, src_dir_fd=from_, dst_dir_fd=to)
        except IsADirectoryError:
            self._discard(name, to)
            os.rename(source, name, src_dir_fd=from_, dst_dir_fd=to)

    def _discard(self, name: str, folder: int) -> None:
        # Out of the reach of sandboxes first.
        staged = self._staged()
        os.rename(name, staged, src_dir_fd=folder)
        if staged.is_dir() and not staged.is_symlink():
            shutil.rmtree(staged, ignore_errors=True)
        else:
            staged.unlink()


def changes(
    now: Mapping[str, os.stat_result], before: dict[str, str]
) -> tuple[list[Item], list[str]]:
    """Return what is new or changed, in its folders, and the paths that are gone, inner first."""
    changed = {path for path, status in now.items() if before.get(path) != signature(status)}
    # Others may have put a file where one of its folders was.
    folders = {path[:end] for path in changed for end in range(len(path)) if path[end] == "/"}
    items = [Item(p, p, status) for p, status in now.items() if p in changed or p in folders]
    return items, [path for path in reversed(before) if path not in now]


def _open(name: str, folder: int) -> BinaryIO:
    # Non-blocking: a sandbox may have put a named pipe there meanwhile.
    return os.fdopen(_allowed(name, _FILE, 0o400, folder), "rb")


def _allowed(name: str | Path, flags: int, rights: int, folder: int | None = None) -> int:
    """Open an entry; give its owner the rights that a sandbox has taken: on Modal it is root's."""
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if rights & ~mode and os.geteuid() and not stat.S_ISLNK(mode) and sys.platform == "linux":
        # A sandbox may put a link there meanwhile.
        entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            mode = stat.S_IMODE(os.fstat(entry).st_mode)
            Path(f"/proc/self/fd/{entry}").chmod(mode | rights)
        finally:
            os.close(entry)
    return os.open(name, flags, dir_fd=folder)


def _duplicate(name: str, folder: int, target: Path, *, link: bool) -> os.stat_result:
    """Clone, copy or link an entry; return its status from before."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        target.symlink_to(os.readlink(name, dir_fd=folder))
    else:
        with _open(name, folder) as file, target.open("xb") as copy:
            status = os.fstat(file.fileno())
            if not _clone(file, copy):
                if link:
                    target.unlink()
                    os.link(name, target, src_dir_fd=folder, follow_symlinks=False)
                    return status
                shutil.copyfileobj(file, copy, _CHUNK)
            os.fchmod(copy.fileno(), status.st_mode & 0o777)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
    return status


def _clone(source: BinaryIO, target: BinaryIO) -> bool:
    """Make an empty file a clone of another one; return whether the disk can."""
    try:
        fcntl.ioctl(target, _FICLONE, source.fileno())
    except OSError:
        return False
    return True
