"""Answer the launcher's HTTP requests: status, stop, preload, kill, logs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modalrun.localmodal.preload import Preload
from modalrun.localmodal.sandbox.sandboxes import Sandboxes
from modalrun.localmodal.server.http import Request, Response, Route
from modalrun.localmodal.signals import Signal
from modalrun.localmodal.storage.logstore import LogStore
from modalrun.localmodal.storage.paths import StateDir
from modalrun.localmodal.storage.store import Store

_KILL_SECONDS = 1.0
"""How long to wait for the end of a killed sandbox."""


@dataclass
class Admin:
    """Routes for the launcher, on the control socket alone.

    Attributes:
        ending: Whether the server is ending.
        log_changed: Fires when the server's own log has grown.
    """

    _state: StateDir
    _store: Store
    _logs: LogStore
    _sandboxes: Sandboxes
    _status: Callable[[], Mapping[str, Any]]
    _stop: Callable[[str], None]
    ending: bool = False
    log_changed: Signal = field(default_factory=Signal)

    @property
    def routes(self) -> dict[tuple[str, str], Route]:
        """Return the routes by method and first part of the path."""
        return {
            ("GET", "status"): self._get_status,
            ("POST", "stop"): self._post_stop,
            ("POST", "preload"): self._post_preload,
            ("POST", "kill"): self._post_kill,
            ("GET", "log"): self._get_log,
        }

    async def _get_status(self, request: Request) -> Response:
        if self.ending:
            return Response(503)
        return Response(200, json.dumps(self._status()).encode())

    async def _post_stop(self, request: Request) -> Response:
        self._stop("it was asked to stop")
        return Response(200)

    async def _post_preload(self, request: Request) -> Response:
        try:
            body = b"".join([part async for part in request.body])
            preload = Preload.from_json(json.loads(body))
        except ValueError:
            return Response(400)
        if not self.ending:
            self._sandboxes.starter.warm.request(preload)
        return Response(200)

    async def _post_kill(self, request: Request) -> Response:
        """Terminate the sandbox of `POST /kill/SANDBOX`; return whether it was running."""
        sandbox_id = request.path.partition("/kill/")[2]
        if self._store.sandbox(sandbox_id) is None:
            return Response(404)
        was_running = self._sandboxes.live(sandbox_id) is not None
        self._sandboxes.terminate(sandbox_id)
        await self._sandboxes.wait(sandbox_id, _KILL_SECONDS)
        return Response(200, json.dumps({"was_running": was_running}).encode())

    async def _get_log(self, request: Request) -> Response:
        """Stream the output of `GET /log/SANDBOX`, or the server's own log of `GET /log`."""
        sandbox_id = request.path.partition("/log/")[2]
        if not sandbox_id:
            return Response(200, stream=self._follow_server_log())
        if self._store.sandbox(sandbox_id) is None or not self._logs.has(sandbox_id):
            return Response(404)
        return Response(200, stream=self._logs.follow(sandbox_id))

    async def _follow_server_log(self) -> AsyncIterator[bytes]:
        with self._state.server_log.open("rb") as file:
            while True:
                if data := file.read(65536):
                    yield data
                elif self.ending:
                    return
                else:
                    await self.log_changed.wait()
