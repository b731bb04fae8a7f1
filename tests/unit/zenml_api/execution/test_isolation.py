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
    ("end", "asks", "recorded"),
    [
        (LOST, "graceful stop", "stopped"),
        (LOST, "fail_fast", "stopped"),
        (LOST, "", "failed"),
        (FAILED, "graceful stop", "failed"),
        (FAILED, "fail_fast", "failed"),
    ],
)
def test_a_step_that_is_lost_because_the_run_ends_has_stopped(
    monkeypatch: pytest.MonkeyPatch, end: SandboxExit, asks: str, recorded: str
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
    if asks == "graceful stop":
        asked.set()
    orchestrator = Orchestrator()
    sandboxes: Any = SimpleNamespace(exit_of=lambda record, wait: end, stop=lambda record: None)
    orchestrator.use(sandboxes, asked)
    step: Any = SimpleNamespace(id="record", name="train", pipeline_run_id="run")
    if asks == "fail_fast":
        orchestrator.stop_isolated_step(step)

    assert orchestrator.get_isolated_step_status(step).value == recorded

    assert records == [(recorded, end.reason)]


def test_no_sandbox_replaces_one_whose_record_was_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_run_step(*_: object, **__: object) -> None:
        raise KeyError("Unable to get step run")

    store = SimpleNamespace(get_run_step=get_run_step)
    monkeypatch.setattr(isolation, "Client", lambda: SimpleNamespace(zen_store=store))
    assert isolation._end_of_record("9e27976f-9c0e-440d-b00d-764feede5c2e") == "stopped"
