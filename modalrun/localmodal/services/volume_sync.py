"""Serve the RPCs that bring changes of a running sandbox to its volumes, and those of others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api
from modal_proto import task_command_router_pb2 as router

from modalrun.localmodal.sandbox.sandboxes import Sandboxes
from modalrun.localmodal.server.rpc import peer_port, rpc
from modalrun.localmodal.services.volumes import Volumes
from modalrun.localmodal.storage.volume_trees import MountedVolumes


class VolumeSync:
    """The RPCs `VolumeCommit`, `VolumeReload` and `TaskReloadVolumes`."""

    def __init__(self, volumes: Volumes, sandboxes: Sandboxes) -> None:
        self._volumes = volumes
        self._sandboxes = sandboxes

    async def _mounted(self, volume_id: str) -> MountedVolumes:
        """Return the volumes of the sandbox that makes the current call. Raises GRPCError."""
        volume = self._volumes.get(volume_id)
        keepers = {
            live.process.keeper: record.id
            for record in self._sandboxes.running()
            if (live := self._sandboxes.live(record.id)) and live.process
        }
        sandbox_id = await asyncio.to_thread(_sandbox_of, peer_port.get(), keepers)
        live = self._sandboxes.live(sandbox_id)
        if live is None or volume.id not in live.launch.volumes.ids:
            raise GRPCError(
                Status.FAILED_PRECONDITION,
                f"Volume '{volume.name or volume.id}' can be committed and reloaded only inside a"
                " sandbox that mounts it",
            )
        return live.launch.volumes

    @rpc("VolumeCommit")
    async def commit(self, request: api.VolumeCommitRequest) -> api.VolumeCommitResponse:
        mounted = await self._mounted(request.volume_id)
        await mounted.commit(request.volume_id)
        return api.VolumeCommitResponse()

    @rpc("VolumeReload")
    async def reload(self, request: api.VolumeReloadRequest) -> Empty:
        mounted = await self._mounted(request.volume_id)
        await mounted.reload(request.volume_id)
        return Empty()

    @rpc("TaskReloadVolumes")
    async def reload_all(
        self, request: router.TaskReloadVolumesRequest
    ) -> router.TaskReloadVolumesResponse:
        if live := self._sandboxes.live(self._sandboxes.of_task(request.task_id).id):
            await live.launch.volumes.reload()
        return router.TaskReloadVolumesResponse()


def _sandbox_of(port: int, keepers: Mapping[int | None, str]) -> str:
    """Return the sandbox of the process that has a TCP port of this machine; "" for none."""
    import psutil  # type: ignore[import-untyped]

    for connection in psutil.net_connections("tcp"):
        if connection.laddr and connection.laddr.port == port and connection.pid:
            with suppress(psutil.Error):
                process = psutil.Process(connection.pid)
                for parent in process.parents():
                    if parent.pid in keepers:
                        return keepers[parent.pid]
                # A command of `exec` descends from another keeper.
                return str(process.environ().get("MODAL_SANDBOX_ID", ""))
    return ""
