"""A run sandbox as those see it who wait for its end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

from modalrun.errors import ConnectionLostError
from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import translated
from modalrun.modal_api.log_buffer import Piece
from modalrun.modal_api.log_streams import RECONNECT_SECONDS, Streams
from modalrun.modal_api.stdio import Source
from modalrun.run.contract import EXIT_TIMED_OUT
from modalrun.run.sandbox_exit import SandboxExit, read_exit
from modalrun.util.backoff import pauses

if TYPE_CHECKING:
    import modal

T = TypeVar("T")


class RunningSandbox:
    """A sandbox that was created, to be watched.

    Attributes:
        id: Modal's id of the sandbox.
        app_id: Modal's id of its app.
        gpu: The GPU that it was asked for in the end.
    """

    def __init__(
        self, connection: Connection, sandbox: modal.Sandbox, *, app_id: str, gpu: str | None = None
    ) -> None:
        self.id: str = sandbox.object_id
        self.app_id = app_id
        self.gpu = gpu
        self._connection = connection
        self._sandbox = sandbox

    @property
    def url(self) -> str | None:
        """The sandbox's page on Modal's dashboard; None on the local Modal server."""
        return f"https://modal.com/id/{self.id}" if self._connection.target == "modal" else None

    def watch(self, on_output: Callable[[Source, str], None]) -> SandboxExit:
        """Pass on the output as it comes, until the sandbox has ended and all of it has arrived.

        A lost connection is tried again for `RECONNECT_SECONDS`; output goes on where it stopped.

        Args:
            on_output: Called with pieces of text, from one thread.

        Raises:
            ConnectionLostError: The connection is lost for good; the sandbox may still run.
        """
        output = Streams(self._connection)
        output.add(self.id)

        def pass_on() -> None:
            for batch in output:
                for item in batch:
                    if isinstance(item, Piece) and item.text:
                        on_output(cast(Source, item.source), item.text)

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
        """
        return self._retrying(self._wait)

    def terminate(self) -> None:
        """End the sandbox now; nothing happens if it has ended."""
        with translated():
            self._sandbox.terminate()

    def _wait(self, sandbox: modal.Sandbox) -> SandboxExit:
        import modal

        try:
            with translated():
                sandbox.wait(raise_on_termination=False)
        except modal.exception.SandboxTimeoutError:
            return read_exit(EXIT_TIMED_OUT)
        code = sandbox.returncode
        # The SDK has waited for the end, so there is a code.
        assert code is not None
        return read_exit(code)

    def _retrying(self, action: Callable[[modal.Sandbox], T]) -> T:
        """Call `action` with a handle, and again with a fresh one after a lost connection."""
        sandbox = self._sandbox
        failing_since: float | None = None
        waits = pauses()
        while True:
            began = time.monotonic()
            try:
                return action(sandbox)
            except ConnectionLostError:
                now = time.monotonic()
                if failing_since is None or now - began > RECONNECT_SECONDS:
                    failing_since, waits = now, pauses()
                if now - failing_since > RECONNECT_SECONDS:
                    raise
            time.sleep(next(waits))
            with contextlib.suppress(ConnectionLostError):
                sandbox = self._fresh_handle(sandbox)

    def _fresh_handle(self, stale: modal.Sandbox) -> modal.Sandbox:
        if self._sandbox is stale:
            self._connection.reconnect()
        self._sandbox = self._connection.attach(self.id)
        return self._sandbox
