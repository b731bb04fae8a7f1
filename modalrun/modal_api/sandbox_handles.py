"""Hold the handles of many sandboxes, on connections that are renewed when they break."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from modalrun.errors import ConnectionLostError
from modalrun.modal_api.client import Connection, require_owner
from modalrun.modal_api.errors import stream_errors
from modalrun.modal_api.sdk_internals import inner, sandbox_from_id
from modalrun.util.backoff import pauses

RECONNECT_SECONDS = 60.0
"""How long a lost connection is tried again before giving up."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0

SANDBOXES_PER_CLIENT = 40
"""One connection carries about 100 streams (HTTP/2's usual limit), and a sandbox has two."""


class Patience:
    """How long to try again, and the pauses between the attempts."""

    def __init__(self) -> None:
        self._failing_since: float | None = None
        self._pauses = pauses(FIRST_PAUSE, LONGEST_PAUSE)

    def reset(self) -> None:
        """Begin again after a success."""
        self._failing_since, self._pauses = None, pauses(FIRST_PAUSE, LONGEST_PAUSE)

    def note_failure(self, error: ConnectionLostError) -> None:
        """Raise the error if attempts have failed for too long."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since > RECONNECT_SECONDS:
            raise error

    async def pause(self) -> None:
        """Wait before the next attempt, longer each time."""
        await asyncio.sleep(next(self._pauses))


class SandboxHandles:
    """The SDK's inner sandboxes of one run, on several connections; used in its loop."""

    def __init__(self, connection: Connection, run_id: str) -> None:
        self._connection = connection
        self._run_id = run_id
        self._clients: list[Any] = []
        self._sandboxes: dict[str, Any] = {}
        self._numbers: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._renewing = asyncio.Lock()

    async def get(self, sandbox_id: str) -> Any:
        """Return the handle of a sandbox.

        Raises:
            ForeignSandboxError: It is not this run's.
            NotFoundError: There is no such sandbox.
            ModalrunError: Modal can't be asked.
        """
        number = self._numbers.setdefault(sandbox_id, len(self._numbers) // SANDBOXES_PER_CLIENT)
        async with self._locks.setdefault(sandbox_id, asyncio.Lock()):
            if sandbox_id not in self._sandboxes:
                client = await self._client(number)
                with stream_errors():
                    sandbox = await sandbox_from_id(sandbox_id, client)
                    require_owner(sandbox_id, await sandbox.get_tags(), self._run_id)
                    self._sandboxes[sandbox_id] = sandbox
            return self._sandboxes[sandbox_id]

    async def _client(self, number: int) -> Any:
        async with self._renewing:
            if not self._clients:
                self._clients.append(inner(self._connection.client))
            while len(self._clients) <= number:
                self._clients.append(inner(await asyncio.to_thread(self._connection.new_client)))
            return self._clients[number]

    async def renew(self, sandbox_id: str, failed: Any) -> None:
        """Forget a handle that failed; if there was none, connect again."""
        if failed is not None:
            if self._sandboxes.get(sandbox_id) is failed:
                del self._sandboxes[sandbox_id]
            return
        stale = list(self._clients)
        async with self._renewing:
            # Many streams lose the connection at the same moment; one of them connects again.
            if stale and self._clients == stale:
                try:
                    await asyncio.to_thread(self._connection.reconnect)
                except ConnectionLostError:
                    return
                self._clients.clear()
                self._sandboxes.clear()
