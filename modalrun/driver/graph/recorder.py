"""Call ZenML from one thread, so that the driver's event loop never waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from modalrun.errors import ConnectionLostError, MachineError, ServerError
from modalrun.run.reporting import log_line
from modalrun.util import garbage_collection
from modalrun.util.backoff import pauses

if TYPE_CHECKING:
    from modalrun.zenml_api.execution.recorder import RunRecorder

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two calls while ZenML can't be reached, growing."""


class AsyncRecorder:
    """Call a run's `RunRecorder`, again and again while ZenML can't be reached."""

    def __init__(self, run_id: str, log: Callable[[str], None] = log_line) -> None:
        """Prepare for a run, by ZenML's id; ZenML is imported with the first call."""
        self._run_id = run_id
        self._log = log
        self._recorder: RunRecorder | None = None
        # ZenML's store is not thread-safe, and SQLite would serialize the calls anyway.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="zenml")

    async def call(self, question: Callable[[RunRecorder], T]) -> T:
        """Call a function with the recorder until ZenML answers; return its result.

        Raises:
            Exception: ZenML refuses, or has had errors of its own, or of its disk, for some time.
        """
        loop = asyncio.get_running_loop()
        waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                return await loop.run_in_executor(self._thread, self._ask, question)
            except (ServerError, MachineError):
                # It was repeated already.
                raise
            except ConnectionLostError as error:
                self._log(f"{error.message}; trying again")
            await asyncio.sleep(next(waits))

    def _ask(self, question: Callable[[RunRecorder], T]) -> T:
        if self._recorder is None:
            with garbage_collection.paused():
                from modalrun.zenml_api.execution.recorder import RunRecorder

                self._recorder = RunRecorder(self._run_id)
        recorder = self._recorder
        from modalrun.zenml_api.errors import database_errors, store_error
        from modalrun.zenml_api.retry import while_database_fails

        try:
            return while_database_fails(lambda: question(recorder))
        except database_errors() as error:
            raise store_error(error) or error from None
