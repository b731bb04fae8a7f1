"""What modalrun changes in ZenML's runner of a dynamic pipeline."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from modalrun.zenml_api.execution.dynamic import _Runner


class Runner(_Runner):
    """A runner without a run."""

    def __init__(self, parent: Runner | None = None) -> None:
        self._parent_runner = parent
        self._shutdown_requested = False
        self._monitoring_event = threading.Event()
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


def test_an_error_does_not_end_the_check_of_isolated_steps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runner = Runner()
    checks: list[str] = []

    class Steps(dict[str, Any]):
        """No steps. ZenML's server fails at the first check; the run ends after the second."""

        def items(self) -> Any:
            runner._monitoring_event.set()
            if not checks:
                checks.append("failed")
                raise ConnectionError("status 500")
            runner._shutdown_requested = True
            return super().items()

    runner._steps_to_monitor = Steps()

    runner._monitoring_loop()

    assert runner._shutdown_requested
    assert "Isolated steps can't be checked: ConnectionError: status 500" in capsys.readouterr().err
