"""Serve the RPCs about volumes as a whole. A volume is a folder."""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

from modalrun.localmodal.server.rpc import invalid, rpc
from modalrun.localmodal.services.named import NamedService
from modalrun.localmodal.services.rules import check_name
from modalrun.localmodal.storage.paths import StateDir
from modalrun.localmodal.storage.store import Store, Stored
from modalrun.localmodal.storage.tree import Tree, relative
from modalrun.localmodal.storage.volume_trees import Mount, MountedVolumes, commit_left


class Volumes(NamedService):
    """The RPCs about volumes, and the folders that sandboxes mount."""

    kind = "volume"
    prefix = "vo"
    plural = "items"

    def __init__(self, state: StateDir, store: Store, *, shared: bool) -> None:
        """
        Args:
            shared: Whether sandboxes see each other's changes at once.
        """
        super().__init__(store)
        self._state = state
        self._shared = shared
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        for folder in state.volumes.glob("vo-*"):
            if store.get("volume", folder.name) is None:
                # Deleted just before the last server was killed.
                self._remove(folder)
        commit_left(state)

    def tree(self, volume_id: str) -> Tree:
        """Return the committed files of a volume. Raises GRPCError (NOT_FOUND)."""
        folder = self._state.volumes / self.get(volume_id).id
        folder.mkdir(exist_ok=True, mode=0o700)
        return Tree(folder, self._state.uploads)

    def lock(self, volume_id: str) -> asyncio.Lock:
        """Return the lock for reading and changing the committed files of a volume."""
        return self._locks[volume_id]

    def names(self, mounts: Iterable[api.VolumeMount]) -> dict[str, str]:
        """Return the names of volumes by mount path. Raises GRPCError."""
        return {mount.mount_path: self.get(mount.volume_id).name for mount in mounts}

    def mounted(self, sandbox_id: str, mounts: Iterable[api.VolumeMount]) -> MountedVolumes:
        """Return the volumes of a new sandbox. Raises GRPCError."""
        found: list[Mount] = []
        paths = [mount.mount_path for mount in mounts]
        for mount in mounts:
            tree, inner = self.tree(mount.volume_id), f"{mount.mount_path}/"
            try:
                sub_path = relative(mount.sub_path)
                with tree.open(sub_path, create=True):
                    pass
            except (OSError, ValueError) as error:
                raise invalid(f"sub_path '{mount.sub_path}' cannot be mounted: {error}") from None
            nested = tuple(path.removeprefix(inner) for path in paths if path.startswith(inner))
            found.append(
                Mount(mount.volume_id, mount.mount_path, sub_path, mount.read_only, nested)
            )
        return MountedVolumes(self._state, sandbox_id, found, self.lock, shared=self._shared)

    def get_or_add(self, request: api.VolumeGetOrCreateRequest, **document: Any) -> Stored:
        return super().get_or_add(request, version=request.version, **document)

    def listed(self, item: Stored, request: api.VolumeListRequest) -> Any:
        return self.about(api.VolumeListItem, item, label=item.name, created_at=item.created_at)

    @rpc("VolumeRename")
    async def rename(self, request: api.VolumeRenameRequest) -> Empty:
        volume = self.get(request.volume_id)
        check_name("Volume", request.name)
        if not volume.name:
            raise invalid("An ephemeral Volume has no name")
        if request.name != volume.name and self.named(volume.environment, request.name):
            raise GRPCError(Status.ALREADY_EXISTS, f"Volume '{request.name}' already exists")
        volume.name = request.name
        self._store.put(volume)
        return Empty()

    @staticmethod
    def _remove(folder: Path) -> None:
        remove = partial(shutil.rmtree, folder, ignore_errors=True)
        asyncio.get_running_loop().run_in_executor(None, remove)

    def drop(self, object_id: str) -> None:
        super().drop(object_id)
        self._remove(self._state.volumes / object_id)
