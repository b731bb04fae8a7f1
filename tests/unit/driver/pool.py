"""Fakes of the workers of a `pipeline` run."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from modalrun.driver.workers.worker import StepEnd
from modalrun.driver.workers.worker_process import WorkerDied
from modalrun.run.manifest import Graph

End = StepEnd | Exception | Callable[[], Awaitable[StepEnd]]
"""What comes of one attempt at a step."""


class Pool:
    """Fake `WorkerPool`: each attempt at a step ends as the test says, and else completes."""

    def __init__(self, graph: Graph | StepEnd | Exception, **ends: list[End]) -> None:
        self.graph = graph
        self.ends = ends
        self.launched: list[str] = []
        self.asked: list[tuple[Any, ...]] = []
        self.logged: list[str] = []
        self.recorded: StepEnd | None = None
        self.cleaned_up = 0
        self.cleanup_problems: list[str] = []
        self.begins = True
        self.used = False
        self.spoiled = 0
        self.running: dict[str, asyncio.Future[StepEnd]] = {}

    def log(self, step: str | None, text: str) -> None:
        self.logged.append(f"{step or '-'}: {text}")

    @contextlib.contextmanager
    def worker(self) -> Iterator[Worker]:
        # A fork in a handler would have the error as the context of every later one.
        assert sys.exc_info() == (None, None, None)
        yield Worker(self)

    def end_busy(self, grace: float) -> None:
        for future in self.running.values():
            future.set_exception(WorkerDied("The step's process died of SIGTERM.", asked=True))

    async def clean_up(self) -> list[str]:
        self.cleaned_up += 1
        return self.cleanup_problems


class Worker:
    """Fake `WorkerProcess`."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.begun = False
        self.used = pool.used

    def last_lines(self) -> list[str]:
        return ["last words"]

    async def ask(
        self,
        method: str,
        *arguments: Any,
        step: str | None = None,
        begun: Callable[[], object] | None = None,
    ) -> Any:
        if method == "graph":
            return await outcome(self.pool.graph)
        if method != "run":
            self.pool.asked.append((method, *arguments))
            if self.pool.spoiled:
                self.pool.spoiled -= 1
                raise WorkerDied("A thread of an earlier step ended it.", asked=False)
            return self.pool.recorded or StepEnd("failed", arguments[1])
        assert step is not None and begun is not None
        self.pool.launched.append(step)
        if self.pool.begins:
            self.begun = True
            begun()
        end = (self.pool.ends.get(step) or [StepEnd("completed")]).pop(0)
        if callable(end):
            return await end()
        return await outcome(end)


async def outcome(value: Any) -> Any:
    await asyncio.sleep(0)
    if isinstance(value, Exception):
        raise value
    return value
