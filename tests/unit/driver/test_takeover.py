"""What a driver tells of steps that were done before it came."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from modalrun.driver.takeover import finished_steps
from modalrun.run.events import StepEvent
from modalrun.run.metadata import StepMetadata


def state(status: str, **more: Any) -> Any:
    values: dict[str, Any] = {"attempt": 1, "began": None, "ended": None, "metadata": None, **more}
    return SimpleNamespace(status=status, successful=status in {"completed", "cached"}, **values)


def told(**states: Any) -> list[StepEvent]:
    return list(finished_steps(states, {"load", "train"}, now=99))


def test_a_step_that_was_done_with_its_sandbox_and_its_times() -> None:
    metadata = StepMetadata("sb-1", gpu="T4", cpu=2.0, memory=512, infrastructure_retries=1)
    done = state("completed", attempt=2, began=10.0, ended=15.0, metadata=metadata)
    assert told(train=done) == [
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
        )
    ]


def test_a_cached_step_has_no_sandbox() -> None:
    metadata = StepMetadata("sb-of-another-run")
    assert told(load=state("cached", began=1.0, ended=2.0, metadata=metadata)) == [
        StepEvent("load", "cached", at=2)
    ]


def test_what_is_not_known_is_left_out() -> None:
    assert told(load=state("completed")) == [StepEvent("load", "completed", at=99)]


def test_only_what_is_done_and_was_not_told_yet() -> None:
    states = {"load": state("running"), "train": state("failed"), "other": state("completed")}
    assert told(**states) == []
