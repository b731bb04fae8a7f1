"""What is recorded of an isolated step whose sandbox could record nothing."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from zenml.enums import ExecutionStatus

from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.zenml_api.execution import isolation
from modalrun.zenml_api.execution.isolation import IsolatingOrchestrator
from modalrun.zenml_api.records import step_records

LOST = SandboxExit(ExitKind.TERMINATED, 137, "It was killed.")
FAILED = SandboxExit(ExitKind.TIMED_OUT, 124, "It took too long.")


class Orchestrator(IsolatingOrchestrator):
    """An orchestrator without a stack."""

    def __init__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("end", "stopping", "recorded"),
    [(LOST, True, "stopped"), (LOST, False, "failed"), (FAILED, True, "failed")],
)
def test_a_step_that_is_lost_during_a_graceful_stop_has_stopped(
    monkeypatch: pytest.MonkeyPatch, end: SandboxExit, stopping: bool, recorded: str
) -> None:
    records: list[tuple[str, str]] = []
    for function, status in (("fail_step", "failed"), ("stop_step", "stopped")):
        monkeypatch.setattr(
            step_records,
            function,
            lambda run_id, step, reason, status=status: records.append((status, reason)),
        )
    monkeypatch.setattr(isolation, "_end_of_record", lambda record: None)
    monkeypatch.setattr(isolation, "_recorded", lambda record: ExecutionStatus(records[-1][0]))
    asked = threading.Event()
    if stopping:
        asked.set()
    orchestrator = Orchestrator()
    orchestrator.use(SimpleNamespace(exit_of=lambda record, wait: end), asked)  # type: ignore[arg-type]
    step: Any = SimpleNamespace(id="record", name="train", pipeline_run_id="run")

    assert orchestrator.get_isolated_step_status(step).value == recorded

    assert records == [(recorded, end.reason)]
