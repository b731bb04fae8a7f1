"""Await, write to and terminate one step sandbox of a run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from modalrun.errors import ModalrunError, NotFoundError
from modalrun.modal_api import sdk_internals
from modalrun.modal_api.sandboxes import sandbox_events
from modalrun.modal_api.sandboxes.connection_pool import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    ConnectionPool,
    PooledConnection,
)
from modalrun.run import sandbox_exit
from modalrun.run.events import Event
from modalrun.run.sandbox_exit import SandboxExit
from modalrun.run.tags import StepTags
from modalrun.util.backoff import pauses

if TYPE_CHECKING:
    import modal


class StepSandbox(StepTags):
    """One step sandbox.

    Attributes:
        id: Modal's id.
        tags: Its tags.
        gpu: The GPU that was requested in the end; None for a sandbox that was found.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        connection: PooledConnection,
        sandbox: modal.Sandbox,
        *,
        tags: Mapping[str, str],
        gpu: str | None = None,
        counted: bool = False,
    ) -> None:
        self.id: str = sandbox.object_id
        self.gpu = gpu
        self.tags = tags
        self._pool = pool
        self._connection = connection
        self._sandbox = sandbox
        self._counted = counted
        self._exit: asyncio.Task[SandboxExit] | None = None

    async def ended(self) -> SandboxExit:
        """Wait for its end, through any number of lost connections."""
        if self._exit is None:
            self._exit = asyncio.create_task(self._wait())
        return await asyncio.shield(self._exit)

    async def write(self, text: str) -> None:
        """Write to its standard input; after a lost connection, the text may come twice.

        Raises:
            ModalrunError: It has ended.
        """

        async def write() -> None:
            self._sandbox.stdin.write(text)
            await self._sandbox.stdin.drain.aio()

        try:
            await self._pool.call(write)
        except ValueError as error:
            # The SDK raises this for a closed input (`modal/io_streams.py:801`, 1.6.4).
            raise NotFoundError(f"{self.id} does not read its input any more: {error}") from error

    async def set_tags(self, tags: Mapping[str, str]) -> None:
        """Replace its tags.

        Raises:
            ModalrunError: It has ended, or Modal refuses them.
        """
        await self._pool.call(lambda: self._sandbox.set_tags.aio(dict(tags)))
        self.tags = tags

    async def listen(self, on_event: Callable[[Event | None], object]) -> None:
        """Call `on_event` with each event on its standard output, until the output ends.

        It is called with None where Modal has no more a part of the output.
        """
        # Another call that waits, beside that for its end.
        self._connection.load += 1
        try:
            await sandbox_events.listen(self._sandbox, on_event, self._pool.log)
        finally:
            self._connection.load -= 1

    @property
    def is_over(self) -> bool:
        """Whether its end is known in this process."""
        return self._exit is not None and self._exit.done()

    async def has_ended(self) -> bool:
        """Ask Modal whether it has ended."""
        return await self._pool.call(self._sandbox.poll.aio) is not None

    async def output_tail(self) -> str:
        """Return the end of what it has printed; see `sandbox_events.output_tail`."""
        return await sandbox_events.output_tail(self._sandbox)

    async def told_usage(self) -> list[str]:
        """Return what its steps have used; see `sandbox_events.told_usage`."""
        return await sandbox_events.told_usage(self._sandbox)

    async def terminate(self) -> None:
        """Terminate it; do nothing if it has ended."""
        with contextlib.suppress(NotFoundError):
            await self._pool.call(self._sandbox.terminate.aio)

    async def _wait(self) -> SandboxExit:
        import modal

        if not self._counted:
            self._connection.load += 1
        waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        try:
            while True:
                try:
                    if (end := await sdk_internals.end_of(self._sandbox)) is not None:
                        return end
                except NotFoundError:
                    return sandbox_exit.LOST
                except (ModalrunError, modal.exception.Error) as error:
                    # No error of a question is an end. The step's deadline is the bound.
                    self._pool.log(f"{self.id}: {error}; asking again")
                await asyncio.sleep(next(waits))
        finally:
            self._connection.load -= 1
