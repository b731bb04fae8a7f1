"""What the driver asks ZenML, from one thread, so that its loop never waits for it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from modalrun.errors import ConnectionLostError

if TYPE_CHECKING:
    from modalrun.zenml_api.step_records import StepState

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two tries while ZenML can't be asked, growing."""


class Records:
    """The records of one run in ZenML. While ZenML can't be reached, it is asked again."""

    def __init__(self, run_id: str, say: Callable[[str], None]) -> None:
        """
        Args:
            run_id: ZenML's run id.
            say: Is told when ZenML can't be reached.
        """
        self._run_id = run_id
        self._say = say
        # ZenML's store is not made for several threads, and SQLite would make them wait anyway.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="zenml")

    def load(self) -> None:
        """Begin to import ZenML; returns at once."""
        self._thread.submit(_load)

    async def states(self) -> dict[str, StepState]:
        """The last record of each step that has one."""

        def ask() -> dict[str, StepState]:
            from modalrun.zenml_api import step_records

            return step_records.step_states(self._run_id)

        return await self._ask(ask)

    async def state(self, step: str) -> StepState | None:
        """The last record of a step; None where there is none."""

        def ask() -> StepState | None:
            from modalrun.zenml_api import step_records

            return step_records.step_state(self._run_id, step)

        return await self._ask(ask)

    async def fail(self, step: str, reason: str) -> None:
        """Record that a step has failed for good; what is finished stays as it is."""

        def ask() -> None:
            from modalrun.zenml_api import step_records

            step_records.fail_step(self._run_id, step, reason, final=True)

        await self._ask(ask)

    async def cached(self, step: str) -> bool:
        """Whether ZenML has the step's outputs in its cache; it is recorded as cached then."""

        def ask() -> bool:
            from modalrun.zenml_api import caching

            return caching.cached(self._run_id, step)

        return await self._ask(ask)

    async def stop_requested(self) -> bool:
        """Whether somebody has asked ZenML to stop the run."""

        def ask() -> bool:
            from modalrun.zenml_api import ordering

            return ordering.run_status(self._run_id) in {"stopping", "stopped"}

        return await self._ask(ask)

    async def finalize(self, reason: str, *, stopped: bool) -> None:
        """Leave nothing `running` of the run; what is finished stays as it is."""

        def ask() -> None:
            from modalrun.zenml_api import runs

            runs.finalize_run(self._run_id, reason, stopped=stopped)

        await self._ask(ask)

    async def _ask(self, question: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        while True:
            try:
                return await loop.run_in_executor(self._thread, question)
            except ConnectionLostError as error:
                self._say(f"{error.message}; trying again")
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)


def _load() -> None:
    # Imports allocate much and free nothing: collecting meanwhile costs a fifth of the time.
    gc.disable()
    from modalrun.zenml_api import runs, step_records  # noqa: F401

    gc.freeze()
    gc.enable()
