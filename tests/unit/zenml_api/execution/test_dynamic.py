"""What modalrun changes in ZenML's runner of a dynamic pipeline."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from modalrun.zenml_api.execution.dynamic import _Runner


class Runner(_Runner):
    """A runner without a run."""

    def __init__(self, parent: Runner | None = None) -> None:
        self._parent_runner = parent
        self.stopped: list[Any] = []
        self._orchestrator: Any = SimpleNamespace(stop_isolated_step=self.stopped.append)


def test_fail_fast_ends_no_step_of_a_run_that_is_stopped_gracefully() -> None:
    step: Any = SimpleNamespace(config=SimpleNamespace(step_operator=None))
    runner = Runner()
    child = Runner(runner)
    for one in (runner, child):
        one._stop_isolated_step(step)
        assert one.stopped == [step]
        one.stopped.clear()

    runner._stop_requested = True

    for one in (runner, child):
        one._stop_isolated_step(step)
        assert one.stopped == []
