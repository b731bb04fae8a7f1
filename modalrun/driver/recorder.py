"""What the driver asks ZenML, from one thread, so that its loop never waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from modalrun.errors import ConnectionLostError
from modalrun.util import garbage_collection
from modalrun.util.backoff import pauses

if TYPE_CHECKING:
    from modalrun.zenml_api.execution.recorder import RunRecorder

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two tries while ZenML can't be asked, growing."""

TROUBLED_TRIES = 8
"""How often a question is put to a server that answers with an error of its own: a minute or so."""


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
        self._recorder: RunRecorder | None = None
        # ZenML's store is not made for several threads, and SQLite would make them wait anyway.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="zenml")

    async def ask(self, question: Callable[[RunRecorder], T]) -> T:
        """What ZenML answers, asked until it does.

        Raises:
            Exception: ZenML refuses, or has had trouble of its own for a while.
        """
        loop = asyncio.get_running_loop()
        waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        tries = 0
        while True:
            tries += 1
            try:
                return await loop.run_in_executor(self._thread, lambda: question(self._loaded()))
            except ConnectionLostError as error:
                self._say(f"{error.message}; trying again")
            except Exception as error:
                if not _is_trouble(error) or tries >= TROUBLED_TRIES:
                    raise
                self._say(f"ZenML has trouble: {type(error).__name__}: {error}; trying again")
            await asyncio.sleep(next(waits))

    def _loaded(self) -> RunRecorder:
        if self._recorder is None:
            with garbage_collection.paused():
                from modalrun.zenml_api.execution.recorder import RunRecorder

                self._recorder = RunRecorder(self._run_id)
        return self._recorder


def _is_trouble(error: Exception) -> bool:
    """Whether asking again may help: a server's status 500, a request or database that broke.

    The first is a RuntimeError (`zen_server/exceptions.py:100`, ZenML 0.98.0), those of `requests`
    are OSErrors, and SQLAlchemy has its own.
    """
    if isinstance(error, (RuntimeError, OSError)):
        return True
    return type(error).__module__.startswith("sqlalchemy.")
