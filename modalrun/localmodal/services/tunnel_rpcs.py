"""Serve the RPCs about the open ports and the readiness probe of a sandbox."""

from __future__ import annotations

import asyncio
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api
from modal_proto import task_command_router_pb2 as router

from modalrun.localmodal.sandbox.live import LiveSandbox
from modalrun.localmodal.sandbox.sandboxes import Sandboxes
from modalrun.localmodal.server.rpc import rpc
from modalrun.localmodal.storage.store import SandboxRecord

_TIMEOUT = api.GenericResult(status=api.GenericResult.GENERIC_STATUS_TIMEOUT)


class TunnelRpcs:
    """The RPCs `SandboxGetTunnels` and `SandboxWaitUntilReady`."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    def _live(self, record: SandboxRecord) -> LiveSandbox:
        live = self._sandboxes.live(record.id)
        if live is None or (live.started.done() and live.started.result() is None):
            raise GRPCError(Status.FAILED_PRECONDITION, f"Sandbox '{record.id}' has ended")
        return live

    @rpc("SandboxGetTunnels", "SandboxGetTunnelsV2")
    async def tunnels(self, request: api.SandboxGetTunnelsRequest) -> api.SandboxGetTunnelsResponse:
        record = self._sandboxes.find(request.sandbox_id)
        started = self._live(record).started
        await asyncio.wait({started}, timeout=request.timeout)
        if not started.done():
            return api.SandboxGetTunnelsResponse(result=_TIMEOUT)
        return api.SandboxGetTunnelsResponse(tunnels=self._live(record).tunnels.data)

    @rpc("SandboxWaitUntilReady")
    async def wait_until_ready(
        self, request: router.SandboxWaitUntilReadyTcrRequest | api.SandboxWaitUntilReadyRequest
    ) -> router.SandboxWaitUntilReadyTcrResponse | api.SandboxWaitUntilReadyResponse:
        """Answer when the readiness probe has succeeded; older SDKs ask the control plane."""
        if isinstance(request, api.SandboxWaitUntilReadyRequest):
            record = self._sandboxes.find(request.sandbox_id)
        else:
            record = self._sandboxes.of_task(request.task_id)
        live = self._live(record)
        if live.launch.probe is None:
            raise GRPCError(
                Status.FAILED_PRECONDITION, f"Sandbox '{record.id}' has no readiness probe"
            )
        either: set[asyncio.Future[Any]] = {live.ready, live.finished}
        await asyncio.wait(either, timeout=request.timeout, return_when=asyncio.FIRST_COMPLETED)
        if not live.ready.done():
            self._live(record)
            raise GRPCError(Status.DEADLINE_EXCEEDED, f"Sandbox '{record.id}' is not ready")
        if isinstance(request, api.SandboxWaitUntilReadyRequest):
            return api.SandboxWaitUntilReadyResponse(ready_at=live.ready.result())
        return router.SandboxWaitUntilReadyTcrResponse(ready_at=live.ready.result())
