"""Wait for the end of a run sandbox and pass on its output, through lost connections."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from modalrun.errors import ConnectionLostError
from modalrun.modal_api.client import Connection
from modalrun.modal_api.log_buffer import OutputChunk, StreamName
from modalrun.modal_api.log_streams import OutputStreams
from modalrun.modal_api.sandbox_handles import RECONNECT_SECONDS
from modalrun.modal_api.sandboxes import sandbox_events
from modalrun.modal_api.sdk_internals import end_of
from modalrun.run.sandbox_exit import SandboxExit
from modalrun.util.backoff import pauses

if TYPE_CHECKING:
    import modal


class RunningSandbox:
    """A run sandbox that was created.

    Attributes:
        id: Modal's id of the sandbox.
        app_id: Modal's id of its app.
        gpu: The GPU that was requested in the end.
    """

    def __init__(
        self,
        connection: Connection,
        sandbox: modal.Sandbox,
        run_id: str,
        *,
        app_id: str,
        gpu: str | None = None,
    ) -> None:
        self.id: str = sandbox.object_id
        self.app_id = app_id
        self.gpu = gpu
        self._connection = connection
        self._run_id = run_id
        self._sandbox = sandbox
        self._cancel: Callable[[], object] = lambda: None

    @property
    def url(self) -> str | None:
        """The sandbox's page on Modal's dashboard; None on the local Modal server."""
        return f"https://modal.com/id/{self.id}" if self._connection.target == "modal" else None

    def watch(self, on_output: Callable[[StreamName, str], None]) -> SandboxExit:
        """Pass on the output as it comes, until the sandbox has ended and all of it has arrived.

        A lost connection is tried again for `RECONNECT_SECONDS`; output continues where it stopped.

        Args:
            on_output: Called with chunks of text, from one thread.

        Raises:
            ConnectionLostError: The connection is lost for good; the sandbox may still run.
        """
        output = OutputStreams(self._connection, self._run_id)
        output.add(self.id)

        def pass_on() -> None:
            for batch in output:
                for item in batch:
                    if isinstance(item, OutputChunk) and item.text:
                        on_output(cast(StreamName, item.source), item.text)

        reader = threading.Thread(target=pass_on, daemon=True)
        reader.start()
        try:
            end = self.wait()
            reader.join()
        finally:
            output.close()
        return end

    def wait(self) -> SandboxExit:
        """Wait until the sandbox has ended, through lost connections as `watch` does.

        Raises:
            ConnectionLostError: The connection is lost for good; the sandbox may still run.
            asyncio.CancelledError: Another thread has called `cancel_wait`.
        """
        failing_since: float | None = None
        waits = pauses()
        while True:
            began = time.monotonic()
            try:
                return asyncio.run(self._wait())
            except ConnectionLostError:
                now = time.monotonic()
                if failing_since is None or now - began > RECONNECT_SECONDS:
                    failing_since, waits = now, pauses()
                if now - failing_since > RECONNECT_SECONDS:
                    raise
            time.sleep(next(waits))
            with contextlib.suppress(ConnectionLostError):
                self._connection.reconnect()
                self._sandbox = self._connection.attach(self.id, self._run_id)

    async def _wait(self) -> SandboxExit:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        end = await end_of(self._sandbox)
        # The SDK has waited for the end, so there is one.
        assert end is not None
        return end

    def told_usage(self) -> list[str]:
        """Return what its steps have used; see `sandbox_events.told_usage`."""
        return asyncio.run(sandbox_events.told_usage(self._sandbox))

    def output_tail(self) -> str:
        """Return the end of what it has printed; see `sandbox_events.output_tail`."""
        return asyncio.run(sandbox_events.output_tail(self._sandbox))

    def cancel_wait(self) -> None:
        """End a `wait` of another thread; the SDK reports a call that outlives its client."""
        with contextlib.suppress(RuntimeError):
            # Its loop is closed if it has ended by itself.
            self._cancel()
