"""Serve the RPCs about volumes that sandboxes need. A volume is a folder.

`modal volume` and the SDK cannot read or write its files.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

from modalrun.localmodal.sandbox.rootfs import inside
from modalrun.localmodal.server.rpc import invalid, not_found, rpc
from modalrun.localmodal.services.rules import check_name
from modalrun.localmodal.services.service import Service
from modalrun.localmodal.storage.ids import Clock
from modalrun.localmodal.storage.paths import StateDir
from modalrun.localmodal.storage.store import Store


class Volumes(Service):
    """The RPCs about volumes, and the folders that sandboxes mount."""

    kind = "volume"
    prefix = "vo"

    def __init__(self, state: StateDir, store: Store, clock: Clock) -> None:
        super().__init__(store, clock)
        self._state = state

    def names(self, mounts: Iterable[api.VolumeMount]) -> dict[str, str]:
        """Return the names of volumes by mount path. Raises GRPCError."""
        return {mount.mount_path: self.get(mount.volume_id).name for mount in mounts}

    def folders(self, mounts: Iterable[api.VolumeMount]) -> dict[str, Path]:
        """Create the folders of volumes; return them by mount path. Raises GRPCError."""
        found: dict[str, Path] = {}
        for mount in mounts:
            folder = self._state.volumes / self.get(mount.volume_id).id
            try:
                folder = inside(folder, mount.sub_path)
            except ValueError as error:
                raise invalid(str(error)) from None
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            found[mount.mount_path] = folder
        return found

    @rpc("VolumeGetOrCreate", create=True)
    async def get_or_create(
        self, request: api.VolumeGetOrCreateRequest
    ) -> api.VolumeGetOrCreateResponse:
        environment = self.resolve(request.environment_name)
        name = request.deployment_name
        found = self.named(environment, name) if name else []
        if found and request.object_creation_type == api.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            raise GRPCError(Status.ALREADY_EXISTS, f"Volume '{name}' already exists")
        if found:
            volume = found[0]
        elif request.object_creation_type == api.OBJECT_CREATION_TYPE_UNSPECIFIED:
            raise not_found("Volume", name)
        else:
            if name:
                check_name("Volume", name)
            volume = self.add(environment, name, version=request.version)
        version = volume.document["version"]
        return api.VolumeGetOrCreateResponse(
            volume_id=volume.id,
            version=version,
            metadata=api.VolumeMetadata(
                version=version,
                name=volume.name,
                creation_info=api.CreationInfo(created_at=volume.created_at, created_by="local"),
            ),
        )

    @rpc("VolumeHeartbeat")
    async def heartbeat(self, request: api.VolumeHeartbeatRequest) -> Empty:
        self.get(request.volume_id)
        return Empty()

    @rpc("VolumeDelete")
    async def delete(self, request: api.VolumeDeleteRequest) -> Empty:
        volume = self.get(request.volume_id)
        self._store.delete("volume", volume.id)
        await asyncio.to_thread(shutil.rmtree, self._state.volumes / volume.id, ignore_errors=True)
        return Empty()
