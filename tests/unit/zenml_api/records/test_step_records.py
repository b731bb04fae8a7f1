"""Record how a step has ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

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
