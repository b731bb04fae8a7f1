"""Volumes, as far as sandboxes need them: a folder that several sandboxes can mount.

Uploading to and reading from a volume with `modal volume` or the SDK is not there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2

from modalrun.localmodal.sandbox.rootfs import inside
from modalrun.localmodal.server.rpc import Call, invalid, not_found, rpc
from modalrun.localmodal.services.environments import Environments
from modalrun.localmodal.storage.ids import Clock, new_id
from modalrun.localmodal.storage.paths import StateDir
from modalrun.localmodal.storage.store import Store, Stored


class Volumes:
    """The RPCs about volumes, and their folders for whoever starts a sandbox."""

    def __init__(
        self, state: StateDir, store: Store, clock: Clock, environments: Environments
    ) -> None:
        self._state = state
        self._store = store
        self._clock = clock
        self._environments = environments

    def _get(self, volume_id: str) -> Stored:
        volume = self._store.get("volume", volume_id)
        if volume is None:
            raise not_found("Volume", volume_id)
        return volume

    def names(self, mounts: Iterable[api_pb2.VolumeMount]) -> dict[str, str]:
        """The volumes' names, by the path that they are mounted at. Raises RpcError."""
        return {mount.mount_path: self._get(mount.volume_id).name for mount in mounts}

    def folders(self, mounts: Iterable[api_pb2.VolumeMount]) -> dict[str, Path]:
        """Where each volume is to be seen in the sandbox, and its folder. Raises RpcError."""
        found: dict[str, Path] = {}
        for mount in mounts:
            folder = self._state.volumes / self._get(mount.volume_id).id
            try:
                folder = inside(folder, mount.sub_path)
            except ValueError as error:
                raise invalid(str(error)) from None
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            found[mount.mount_path] = folder
        return found

    @rpc("VolumeGetOrCreate", create=True)
    async def get_or_create(
        self, request: api_pb2.VolumeGetOrCreateRequest, call: Call
    ) -> api_pb2.VolumeGetOrCreateResponse:
        environment = self._environments.resolve(request.environment_name)
        name = request.deployment_name
        found = self._store.named("volume", environment, name) if name else []
        if found:
            volume = found[0]
        elif request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
            raise not_found("Volume", name)
        else:
            volume = Stored("volume", new_id("vo"), self._clock.now(), environment, name)
            volume.document = {"version": request.version}
            self._store.put(volume)
        version = volume.document["version"]
        return api_pb2.VolumeGetOrCreateResponse(
            volume_id=volume.id,
            version=version,
            metadata=api_pb2.VolumeMetadata(
                version=version,
                name=volume.name,
                creation_info=api_pb2.CreationInfo(
                    created_at=volume.created_at, created_by="local"
                ),
            ),
        )

    @rpc("VolumeHeartbeat")
    async def heartbeat(self, request: api_pb2.VolumeHeartbeatRequest, call: Call) -> Empty:
        self._get(request.volume_id)
        return Empty()
