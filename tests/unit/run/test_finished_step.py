"""Tell again how steps have ended that an earlier process has run."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from modalrun.run.events import StepEvent
from modalrun.run.failure import Failure
from modalrun.run.finished_step import end_event
from modalrun.run.metadata import StepMetadata
from modalrun.run.progress import RunProgress
from modalrun.run.records import StepRecord

METADATA = StepMetadata("sb-1", gpu="T4", cpu=2.0, memory=512, infrastructure_retries=1)


def ended(status: str, **more: Any) -> StepRecord:
    start, end = (datetime.fromtimestamp(second, timezone.utc) for second in (10, 15))
    return StepRecord("train", status, start=start, end=end, metadata=METADATA, **more)


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_step_that_ran_has_its_sandbox_and_its_own_times(status: str) -> None:
    failure = Failure("ValueError: no") if status == "failed" else None
    event = end_event(ended(status, attempt=2, failure=failure), now=99)
    assert event == StepEvent(
        "train",
        status,  # type: ignore[arg-type]
        at=15,
        attempt=3,
        sandbox="sb-1",
        gpu="T4",
        cpu=2.0,
        memory=512,
        reason=failure and "ValueError: no",
        began=10,
        restarts=1,
    )
    progress = RunProgress(["train"])
    progress.apply(event)
    assert progress.rows["train"].seconds(99) == 5


@pytest.mark.parametrize("status", ["cached", "skipped"])
def test_the_sandbox_of_a_result_that_was_taken_is_another_runs(status: str) -> None:
    event = StepEvent("train", status, at=15)  # type: ignore[arg-type]
    assert end_event(ended(status), now=99) == event


def test_unknown_values_are_left_out() -> None:
    record = StepRecord("load", "completed")
    assert end_event(record, now=99) == StepEvent("load", "completed", at=99)
