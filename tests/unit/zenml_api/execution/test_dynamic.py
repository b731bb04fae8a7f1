"""What modalrun changes in ZenML's runner of a dynamic pipeline."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from zenml.enums import ExecutionStatus
from zenml.execution.pipeline.dynamic.future_registry import StartupCancelled

from modalrun.run import events
from modalrun.run.events import StepEvent
from modalrun.run.records import StepRecord
from modalrun.zenml_api.execution import dynamic
from modalrun.zenml_api.execution.dynamic import _emit_finished_steps, _Runner
from modalrun.zenml_api.records import step_records


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


class Cause(Exception):
    """What has failed first."""


@pytest.mark.parametrize("known", ["run", "cancellation", "nowhere"])
def test_the_first_failure_is_raised_in_place_of_what_only_follows_it(known: str) -> None:
    runner, cause = Runner(), Cause("no inputs")
    runner._call_user_code = lambda call: call()  # type: ignore[method-assign]
    # With `continue_on_failure` the run has no failure yet, and ZenML names the cause.
    runner._exception = cause if known == "run" else None

    def function() -> None:
        follows = StartupCancelled("not starting new work")
        raise follows from (cause if known == "cancellation" else None)

    with pytest.raises(StartupCancelled if known == "nowhere" else Cause) as caught:
        runner._call_function(function)
    assert caught.value.__context__ is None


class Server:
    """ZenML's client, with one step that is stopping; the first writes fail."""

    def __init__(self, step: Any, failures: int) -> None:
        self.step, self.failures, self.zen_store = step, failures, self

    def get_run_step(self, _: Any) -> Any:
        return self.step

    def update_run_step(self, *, step_run_update: Any, **_: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("status 500")
        self.step.status = step_run_update.status
        return self.step


def test_a_step_whose_end_could_not_be_recorded_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dynamic, "MONITOR_PAUSE", 0.0)
    monkeypatch.setenv("ZENML_DYNAMIC_PIPELINE_MONITORING_INTERVAL", "0")
    config = SimpleNamespace(step_operator=None)
    step: Any = SimpleNamespace(
        id=UUID(int=1), name="late", config=config, duration=None, status=ExecutionStatus.STOPPING
    )
    server = Server(step, failures=3)
    for module in ("client", "execution.pipeline.dynamic.runner"):
        monkeypatch.setattr(f"zenml.{module}.Client", lambda: server)
    finished: list[tuple[str, ExecutionStatus]] = []

    class Finishing(Runner):
        """One whose run is over when its step is, or when that is forgotten."""

        def _on_step_finished(self, step_run: Any) -> None:
            finished.append((step_run.name, step_run.status))

        @property
        def _shutdown_requested(self) -> bool:
            return not self._steps_to_monitor

        @_shutdown_requested.setter
        def _shutdown_requested(self, _: bool) -> None: ...

    runner = Finishing()
    runner._orchestrator = SimpleNamespace(
        get_isolated_step_status=lambda _: ExecutionStatus.STOPPED,
        cleanup_isolated_step=lambda _: None,
    )
    runner._steps_to_monitor = {"late": step}

    runner._monitoring_loop()

    assert finished == [("late", ExecutionStatus.STOPPED)]
    # The same error is logged once.
    assert capsys.readouterr().err.count("ConnectionError: status 500") == 1


def test_finished_steps_keep_their_times_when_they_are_told_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start, end = (datetime.fromtimestamp(second, timezone.utc) for second in (10, 15))
    records = [
        StepRecord("train", "completed", start=start, end=end),
        StepRecord("try", "failed", attempt=2, start=start, end=end),
        StepRecord("deploy", "running", start=end),
    ]
    known = {record.name: record for record in records}
    monkeypatch.setattr(step_records, "step_states", lambda _run_id: known)

    _emit_finished_steps("id")

    assert [events.read(line) for line in capsys.readouterr().out.split("\n")[:-1]] == [
        StepEvent("train", "completed", at=15, began=10),
        StepEvent("try", "failed", at=15, attempt=2, began=10),
    ]
