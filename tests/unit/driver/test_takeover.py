"""Emit the ends of steps that were done before a driver took over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from modalrun.driver.graph.takeover import finished_steps
from modalrun.run.events import StepEvent
from modalrun.run.metadata import StepMetadata


def state(status: str, **more: Any) -> Any:
    values: dict[str, Any] = {"attempt": 1, "began": None, "ended": None, "metadata": None, **more}
    restarts = values["metadata"].infrastructure_retries if values["metadata"] else None
    values["sandboxes"] = values["attempt"] + (restarts or 0)
    return SimpleNamespace(status=status, successful=status in {"completed", "cached"}, **values)


def step_events(**states: Any) -> list[StepEvent]:
    return list(finished_steps(states, {"load", "train"}, now=99))


def test_a_completed_step_with_sandbox_and_times() -> None:
    metadata = StepMetadata("sb-1", gpu="T4", cpu=2.0, memory=512, infrastructure_retries=1)
    done = state("completed", attempt=2, began=10.0, ended=15.0, metadata=metadata)
    assert step_events(train=done) == [
        StepEvent(
            "train",
            "completed",
            at=15,
            attempt=3,
            sandbox="sb-1",
            gpu="T4",
            cpu=2.0,
            memory=512,
            began=10,
            restarts=1,
        )
    ]


def test_a_cached_step_has_no_sandbox() -> None:
    metadata = StepMetadata("sb-of-another-run")
    assert step_events(load=state("cached", began=1.0, ended=2.0, metadata=metadata)) == [
        StepEvent("load", "cached", at=2)
    ]


def test_unknown_values_are_left_out() -> None:
    assert step_events(load=state("completed")) == [StepEvent("load", "completed", at=99)]


def test_only_successful_steps_of_this_run_are_emitted() -> None:
    states = {"load": state("running"), "train": state("failed"), "other": state("completed")}
    assert step_events(**states) == []
