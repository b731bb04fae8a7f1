"""Record how a step has ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from modalrun.run.metadata import TRIES_KEY, StepMetadata
from modalrun.run.records import StepRecord
from modalrun.zenml_api.records import step_records, stores


def test_a_step_has_ended_when_its_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever records it may need seconds to import ZenML."""
    changes: dict[str, Any] = {}
    store = SimpleNamespace(update_step=lambda _, **given: changes.update(given))
    monkeypatch.setattr(stores, "current", lambda: store)
    step_records.end_step("some-step", "failed", "It died.", ended=1_700_000_000.25)
    assert changes["end_time"] == "2023-11-14T22:13:20.250000"


@pytest.mark.parametrize(
    ("status", "reason"), [("running", "Another step failed."), ("retrying", None)]
)
def test_a_step_that_waits_for_its_retry_is_stopped_with_the_reason_of_its_failure(
    monkeypatch: pytest.MonkeyPatch, status: str, reason: str | None
) -> None:
    stored: list[dict[str, Any]] = []
    store = SimpleNamespace(update_step=lambda _, **given: stored.append(given))
    monkeypatch.setattr(stores, "current", lambda: store)
    record = StepRecord("train", status, id="some-step")
    monkeypatch.setattr(step_records, "step_state", lambda *_: record)

    step_records.stop_step("some-run", "train", "Another step failed.")

    (change,) = stored
    assert change["status"] == "stopped"
    assert (change["exception_info"] or {"message": None})["message"] == reason


@pytest.mark.parametrize(
    ("before", "attempt", "stored"),
    [
        (None, 1, True),
        (StepRecord("train", "running", 1, id="record-1"), 1, True),
        # The sandbox of the second attempt was refused.
        (StepRecord("train", "retrying", 1, id="record-1"), 2, True),
        (StepRecord("train", "retrying", 2, id="record-2"), 3, False),
        # No attempt made a record.
        (None, 3, False),
    ],
)
def test_retries_that_do_not_come_are_no_attempts(
    monkeypatch: pytest.MonkeyPatch, before: StepRecord | None, attempt: int, stored: bool
) -> None:
    added: list[tuple[str, Any]] = []
    made = [before.attempt] if before else [0]

    def failed(attempt: int) -> StepRecord:
        status = "failed" if attempt == 3 else "retrying"
        return StepRecord("train", status, attempt, id=f"record-{attempt}")

    def create(*_: object) -> StepRecord:
        made.append(made[-1] + 1)
        return failed(made[-1])

    store = SimpleNamespace(
        update_step=lambda *_, **__: failed(made[-1]),
        add_metadata=lambda _, owner, values: added.append((owner, values)),
    )
    monkeypatch.setattr(stores, "current", lambda: store)
    monkeypatch.setattr(step_records, "step_state", lambda *_, **__: before)
    monkeypatch.setattr(step_records, "honour_stop_request", lambda _: None)
    monkeypatch.setattr(step_records, "_create_failed", create)

    last = step_records.fail_step("some-run", "train", "Refused.", attempt=attempt, final=True)

    assert last == failed(3)
    assert added == ([("record-3", {TRIES_KEY: attempt})] if stored else [])


def test_a_step_whose_run_was_deleted_has_no_metadata_and_nothing_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def add_metadata(*_: Any) -> None:
        raise KeyError("The step run was not found")

    monkeypatch.setattr(stores, "current", lambda: SimpleNamespace(add_metadata=add_metadata))
    step_records.record_metadata("some-step", StepMetadata("sb-1"))
    assert not caplog.records
