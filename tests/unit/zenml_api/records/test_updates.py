"""Record the end of a run of which nobody has seen the end."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from modalrun.run.metadata import RunMetadata
from modalrun.zenml_api.records import stores, updates
from modalrun.zenml_api.records.responses import StoredRun, StoredStep

BEGIN = datetime(2026, 11, 1, tzinfo=timezone.utc)
RUN = StoredRun(
    id="some-run",
    name="some-run",
    pipeline="training",
    status="running",
    created=BEGIN,
    metadata=RunMetadata("local", "pipeline", "app", "ap-1", "sb-1"),
    deployment="some-deployment",
    stack=None,
    project="some-project",
    failing=False,
    dynamic=False,
    values={},
    orchestrator_run_id=None,
)
STEP = StoredStep("train", "running", created=BEGIN, run=RUN.id, heartbeat=None, id="train")


def at(minutes: float) -> datetime:
    return BEGIN + timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("steps", "ends", "end"),
    [
        # The last heartbeat, and the next one that did not come.
        ([replace(STEP, heartbeat=at(5))], [5.25], 5.25),
        # It waits for its next attempt.
        ([replace(STEP, status="retrying", end=at(4), heartbeat=at(3))], [4], 4),
        (
            [replace(STEP, heartbeat=at(5)), replace(STEP, id="b", heartbeat=at(9))],
            [5.25, 9.25],
            9.25,
        ),
        # Nobody knows how long these have run, nor what the run did after its last step.
        ([STEP], [None], None),
        ([replace(STEP, heartbeat=at(5)), replace(STEP, id="b")], [5.25, None], None),
        ([replace(STEP, status="completed", end=at(4))], [], None),
        ([], [], None),
    ],
)
def test_a_lost_run_ends_with_its_steps_last_heartbeats(
    monkeypatch: pytest.MonkeyPatch,
    steps: list[StoredStep],
    ends: list[float | None],
    end: float | None,
) -> None:
    recorded: list[float | None] = []
    stored: dict[str, Any] = {}

    def minutes(seconds: float) -> float | None:
        found = (seconds - BEGIN.timestamp()) / 60
        return found if found < 60 else None

    def end_step(*_: Any, ended: float, **__: Any) -> SimpleNamespace:
        recorded.append(minutes(ended))
        return SimpleNamespace(finished=True)

    monkeypatch.setattr(updates, "get_run", lambda _: RUN)
    monkeypatch.setattr(updates, "step_runs", lambda _: steps)
    monkeypatch.setattr(updates, "end_step", end_step)
    monkeypatch.setattr(updates, "_update_run", lambda *_, **__: None)
    monkeypatch.setattr(updates, "publish_metadata", lambda _, given: stored.update(given))

    assert updates.finalize_run(RUN.id, "It was lost.", unseen=True)

    assert recorded == ends
    lost_at = stored.get("modalrun_lost_at")
    assert (None if lost_at is None else minutes(lost_at)) == end


@pytest.mark.parametrize(
    ("left", "recorded"),
    [
        (None, [("failed", "It broke."), ("stopped", "It broke.")]),
        ("The run failed.", [("stopped", "The run failed.")]),
    ],
)
def test_a_step_that_has_not_failed_is_stopped_when_its_run_fails(
    monkeypatch: pytest.MonkeyPatch, left: str | None, recorded: list[tuple[str, str]]
) -> None:
    ends: list[tuple[str, str]] = []

    def end_step(_: str, status: str, reason: str, *__: Any, **___: Any) -> SimpleNamespace:
        ends.append((status, reason))
        # A failure gets a retry.
        return SimpleNamespace(finished=status == "stopped")

    monkeypatch.setattr(updates, "get_run", lambda _: RUN)
    monkeypatch.setattr(updates, "step_runs", lambda _: [STEP])
    monkeypatch.setattr(updates, "end_step", end_step)
    monkeypatch.setattr(updates, "_update_run", lambda *_, **__: None)
    monkeypatch.setattr(updates, "publish_metadata", lambda *_: None)

    assert updates.finalize_run(RUN.id, "It broke.", left=left)

    assert ends == recorded


@pytest.mark.parametrize(
    ("stopped", "left", "recorded"),
    [
        (True, None, ["stopped"]),
        (False, None, ["failed", "stopped"]),
        (False, "The run failed.", ["stopped"]),
    ],
)
def test_a_step_that_waits_for_its_retry_keeps_the_reason_of_its_failure(
    monkeypatch: pytest.MonkeyPatch, stopped: bool, left: str | None, recorded: list[str]
) -> None:
    changes: list[dict[str, Any]] = []

    def update_step(_: str, **given: Any) -> SimpleNamespace:
        changes.append(given)
        return SimpleNamespace(finished=given["status"] == "stopped")

    store = SimpleNamespace(update_step=update_step)
    monkeypatch.setattr(stores, "current", lambda: store)
    monkeypatch.setattr(updates, "get_run", lambda _: RUN)
    monkeypatch.setattr(updates, "step_runs", lambda _: [replace(STEP, status="retrying")])
    monkeypatch.setattr(updates, "_update_run", lambda *_, **__: None)
    monkeypatch.setattr(updates, "publish_metadata", lambda *_: None)

    updates.finalize_run(RUN.id, "It ended.", stopped=stopped, left=left, lines=["the last line"])

    assert [change["status"] for change in changes] == recorded
    assert [change["exception_info"] for change in changes] == [None] * len(recorded)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_step_that_the_end_of_its_run_keeps_from_beginning_has_failed(
    monkeypatch: pytest.MonkeyPatch, *, stopped: bool
) -> None:
    done: list[Any] = []
    monkeypatch.setattr(updates, "get_run", lambda _: RUN)
    monkeypatch.setattr(updates, "step_runs", lambda _: [replace(STEP, status="failed")])
    monkeypatch.setattr(updates, "fail_step", lambda *given, **_: done.append(given))
    monkeypatch.setattr(updates, "_update_run", lambda *_, **__: done.append("run"))
    monkeypatch.setattr(updates, "publish_metadata", lambda *_: None)

    lines = {"train": [], "load": ["importing"]}
    updates.finalize_run(RUN.id, "It was late.", stopped=stopped, lines=lines)

    why = "It was late. The step's function had not begun."
    # ZenML creates no record once the run has ended.
    assert done[:2] == (["run", "run"] if stopped else [(RUN.id, "load", why), "run"])
