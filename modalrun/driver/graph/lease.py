"""One attempt at a step in a sandbox that is kept warm (`driver/graph/warm_sandboxes.py`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from modalrun.run import tags
from modalrun.run.events import LinesOf
from modalrun.run.sandbox_exit import SandboxExit

if TYPE_CHECKING:
    from modalrun.modal_api.sandboxes.step_sandbox import StepSandbox


class Lease(tags.StepTags):
    """One attempt at a step in a worker, used like a `StepSandbox` of the step's own.

    Attributes:
        id: Modal's id of the sandbox.
        gpu: Its GPU; None for a CPU sandbox, or for one that another driver has created.
        tags: What Modal's tags say while the attempt runs.
        begun: Set when the worker has begun it.
    """

    def __init__(self, sandbox: StepSandbox, labels: dict[str, str]) -> None:
        self.id = sandbox.id
        self.gpu = sandbox.gpu
        self.tags = labels
        self.begun = asyncio.Event()
        self._sandbox = sandbox
        self._end: asyncio.Future[SandboxExit] = asyncio.get_running_loop().create_future()

    @property
    def is_first(self) -> bool:
        """Whether the sandbox was created for it."""
        return self.tags.get(tags.TAG_SERVED) == "1"

    async def ended(self) -> SandboxExit:
        """Wait for the end of the step, or of the sandbox."""
        return await asyncio.shield(self._end)

    async def write(self, text: str) -> None:
        """Write to the standard input of the sandbox."""
        await self._sandbox.write(text)

    async def output_tail(self) -> str:
        """Return the end of what the sandbox has printed."""
        return await self._sandbox.output_tail()

    async def told_usage(self) -> list[str]:
        """Return what the steps of the sandbox have used."""
        return await self._sandbox.told_usage()

    async def terminate(self) -> None:
        """Terminate the sandbox, if the step has not ended."""
        if not self._end.done():
            await self._sandbox.terminate()

    def finish(self, end: SandboxExit) -> None:
        """Note how the step has ended."""
        if not self._end.done():
            self._end.set_result(end)

    def is_of(self, event: LinesOf) -> bool:
        """Return whether an event announces this attempt."""
        step = tags.fit(event.step, tags.MAX_TAG) if event.step else ""
        return (step, event.attempt) == (self.step, self.attempt)
