"""Serve the RPCs that bring changes of a running sandbox to its volumes, and those of others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api
from modal_proto import task_command_router_pb2 as router

from modalrun.localmodal.sandbox.live import LiveSandbox
from modalrun.localmodal.sandbox.process import SandboxProcess
from modalrun.localmodal.sandbox.sandboxes import Sandboxes
from modalrun.localmodal.server.rpc import peer_port, rpc
from modalrun.localmodal.services.volumes import Volumes


class VolumeSync:
    """The RPCs `VolumeCommit`, `VolumeReload` and `TaskReloadVolumes`."""

    def __init__(self, volumes: Volumes, sandboxes: Sandboxes) -> None:
        self._volumes = volumes
        self._sandboxes = sandboxes

    async def _caller(self, volume_id: str) -> LiveSandbox:
        """Return the sandbox that makes the current call. Raises GRPCError."""
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
        return live

    @rpc("VolumeCommit")
    async def commit(self, request: api.VolumeCommitRequest) -> api.VolumeCommitResponse:
        sandbox = await self._caller(request.volume_id)
        await sandbox.launch.volumes.commit(request.volume_id)
        # Otherwise the SDK reloads, which fails while files are open.
        return api.VolumeCommitResponse(skip_reload=True)

    @rpc("VolumeReload")
    async def reload(self, request: api.VolumeReloadRequest) -> Empty:
        await _reload(await self._caller(request.volume_id), request.volume_id)
        return Empty()

    @rpc("TaskReloadVolumes")
    async def reload_all(
        self, request: router.TaskReloadVolumesRequest
    ) -> router.TaskReloadVolumesResponse:
        await _reload(self._sandboxes.live_task(request.task_id))
        return router.TaskReloadVolumesResponse()


async def _reload(sandbox: LiveSandbox, volume_id: str = "") -> None:
    """Reload a volume, or all. Raises GRPCError if one is in use, as Modal does."""
    held = await asyncio.to_thread(_held, sandbox.process) if sandbox.process else set()
    if path := await sandbox.launch.volumes.used(held, volume_id):
        # The SDK looks for this sentence (`Volume.reload`, 1.6.4). The working folder counts, too
        # (modal-client pull request 1669, read 2026-11-28).
        raise GRPCError(
            Status.FAILED_PRECONDITION,
            f"there are open files preventing the operation: {path} is open, or the working folder"
            " of a process",
        )
    await sandbox.launch.volumes.reload(volume_id)


def _held(sandbox: SandboxProcess) -> set[tuple[int, int]]:
    """Return device and inode of what the processes of an isolated sandbox have open."""
    held = set()
    # The second namespace is that of mounts.
    for mounts in map(os.fstat, sandbox.namespaces[1:2]):
        for process in Path("/proc").glob("[0-9]*"):
            # It may end meanwhile, or close a file.
            with suppress(OSError):
                if os.path.samestat((process / "ns" / "mnt").stat(), mounts):
                    for file in (process / "cwd", *(process / "fd").iterdir()):
                        with suppress(OSError):
                            status = file.stat()
                            held.add((status.st_dev, status.st_ino))
    return held


def _sandbox_of(port: int, keepers: Mapping[int | None, str]) -> str:
    """Return the sandbox of the process that has a TCP port of this machine; "" for none."""
    import psutil

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
