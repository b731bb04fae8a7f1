"""How steps stand, from events."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.events import Idle, StepEvent
from modalrun.run.failure import Failure
from modalrun.run.progress import RunProgress, StepProgress
from modalrun.run.records import NOT_RUN, StepRecord

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
EPOCH = NOON.timestamp()
RECORDED = StepRecord("train", "completed", 1, NOON, NOON + timedelta(seconds=4))


def test_a_step_from_its_start_to_its_end() -> None:
    board = RunProgress(["load", "train"])
    row = board.rows["train"]
    assert (row.state, row.seconds(10), row.final) == ("waiting", None, False)

    board.apply(StepEvent("train", "starting", at=10, gpu="H100"))
    assert (row.state, row.seconds(11), row.gpu) == ("starting", None, "H100")
    board.apply(StepEvent("train", "running", at=12, sandbox="sb-1", gpu="H100"))
    # The sandbox has yet to start Python and ZenML, which is no time of the step's.
    assert (row.state, row.sandbox, row.seconds(15)) == ("starting", "sb-1", None)
    board.apply(StepEvent("train", "running", at=15, sandbox="sb-1", began=15))
    assert (row.state, row.seconds(18)) == ("running", 3)
    board.apply(StepEvent("train", "failed", at=20, sandbox="sb-1", exit_code=1, reason="raised"))

    assert (row.state, row.final, row.seconds(99)) == ("failed", True, 5)
    assert row.reason == "raised"
    assert board.counts() == {"waiting": 1, "failed": 1}


def test_what_a_step_waits_for() -> None:
    progress = RunProgress(["train"])
    row = progress.rows["train"]
    progress.apply(StepEvent("train", "starting", 5.0, awaits="H100"))
    assert (row.state, row.capacity_wait) == ("starting", CapacityWait("H100", None, 5.0))
    assert row.capacity_wait and row.capacity_wait.text(45.0) == "waiting for H100 (40 s)"
    progress.apply(StepEvent("train", "running", 50.0, sandbox="sb-1", gpu="H100"))
    assert row.capacity_wait is None


def test_another_attempt_starts_anew_and_an_older_one_is_history() -> None:
    board = RunProgress(["train"])
    board.apply(StepEvent("train", "running", at=1, sandbox="sb-1", gpu="T4"))
    board.apply(StepEvent("train", "retrying", at=3, sandbox="sb-1"))
    board.apply(StepEvent("train", "starting", at=4, attempt=2))
    row = board.rows["train"]
    assert (row.attempt, row.sandbox, row.gpu) == (2, None, None)
    board.apply(StepEvent("train", "running", at=5, attempt=2, sandbox="sb-2", began=5))
    board.apply(StepEvent("train", "failed", at=6, attempt=1, sandbox="sb-1"))
    assert (row.state, row.sandbox, row.seconds(7)) == ("running", "sb-2", 2)


def test_a_sandbox_that_replaces_a_lost_one_is_no_further_try() -> None:
    board = RunProgress(["train"])
    row = board.rows["train"]
    board.apply(StepEvent("train", "running", at=1, sandbox="sb-1"))
    board.apply(StepEvent("train", "running", at=2, sandbox="sb-1", began=2))
    board.apply(StepEvent("train", "retrying", at=30, sandbox="sb-1"))
    again = StepEvent("train", "running", at=33, attempt=2, restarts=1, sandbox="sb-2")
    for event in (replace(again, state="starting", sandbox=None), again):
        board.apply(event)
        assert (row.state, row.attempt) == ("starting", 1)
    board.apply(replace(again, at=36, began=36))
    # As ZenML's record counts, whose start is that of the first sandbox.
    assert (row.state, row.attempt, row.sandbox, row.seconds(40)) == ("running", 1, "sb-2", 38)
    board.apply(StepEvent("train", "failed", at=37, sandbox="sb-1"))
    assert row.state == "running"
    board.apply(StepEvent("train", "running", at=50, attempt=3, restarts=1, began=50))
    assert (row.attempt, row.seconds(52)) == (2, 2)


def test_a_driver_that_takes_over_says_again_what_was_said() -> None:
    board = RunProgress(["train"])
    board.apply(StepEvent("train", "running", at=1, sandbox="sb-1", began=1))
    board.apply(StepEvent("train", "running", at=9, sandbox="sb-1"))
    assert board.rows["train"].seconds(11) == 10
    board.apply(StepEvent("train", "completed", at=12, sandbox="sb-1"))
    board.apply(StepEvent("train", "completed", at=15, sandbox="sb-1"))
    assert board.rows["train"].seconds(99) == 11


def test_what_was_before_the_driver_that_tells_of_it() -> None:
    board = RunProgress(["load", "train"])
    done = StepEvent("load", "completed", at=9, attempt=2, sandbox="sb-1", gpu="T4", began=4)
    board.apply(done)
    board.apply(StepEvent("train", "running", at=20, sandbox="sb-2", began=10))
    row = board.rows["load"]
    assert (row.state, row.attempt, row.gpu, row.sandbox) == ("completed", 2, "T4", "sb-1")
    assert [board.rows[step].seconds(30) for step in ("load", "train")] == [5, 20]


def test_a_sandbox_may_wait_between_two_attempts() -> None:
    board = RunProgress(["a", "b"])
    board.apply(StepEvent("a", "running", at=10, sandbox="sb-1", gpu="T4"))
    board.apply(StepEvent("a", "retrying", at=14))
    board.apply(Idle("a", "sb-1", 2.5, "T4"))
    board.apply(StepEvent("a", "running", at=16.5, attempt=2, sandbox="sb-1"))
    board.apply(StepEvent("a", "completed", at=18, attempt=2))
    board.apply(StepEvent("b", "running", at=19, sandbox="sb-1"))
    assert board.idle == [Idle("a", "sb-1", 2.5, "T4")]


def test_a_step_that_nobody_knew_of_is_shown_too() -> None:
    board = RunProgress([])
    board.apply(StepEvent("late", "running", at=1))
    assert list(board.rows) == ["late"]


def test_of_many_steps_those_that_matter_are_chosen() -> None:
    board = RunProgress([f"s{i}" for i in range(50)])
    for i in range(20):
        board.apply(StepEvent(f"s{i}", "running", at=i))
        board.apply(StepEvent(f"s{i}", "failed" if i == 3 else "completed", at=i + 1))
    for i in (30, 40):
        board.apply(StepEvent(f"s{i}", "running", at=50))
    assert [row.name for row in board.chosen(3)] == ["s3", "s30", "s40"]
    assert [row.name for row in board.chosen(5)] == ["s3", "s18", "s19", "s30", "s40"]
    assert len(board.chosen(99)) == 50
    assert board.chosen(0) == []


def test_a_servers_whole_seconds_give_way_to_the_runs_own_times() -> None:
    step = StepProgress("train", "running", EPOCH + 0.4, EPOCH + 3.65).recorded_as(RECORDED)
    assert (step.state, step.seconds(0)) == ("completed", pytest.approx(3.25))


@pytest.mark.parametrize(
    ("record", "started", "ended"),
    [
        (RECORDED, None, EPOCH + 4),
        # Of another attempt, or by another clock.
        (RECORDED, EPOCH - 60, EPOCH + 3.6),
        (RECORDED, EPOCH + 0.4, EPOCH + 60),
        # The record is more exact itself.
        (replace(RECORDED, start=NOON + timedelta(seconds=0.25)), EPOCH + 0.4, EPOCH + 3.6),
        (replace(RECORDED, end=None), EPOCH + 0.4, EPOCH + 3.6),
    ],
)
def test_else_a_steps_times_are_those_of_its_record(
    record: StepRecord, started: float | None, ended: float | None
) -> None:
    step = StepProgress("train", "running", started, ended).recorded_as(record)
    assert (step.started, step.ended) == (record.began, record.ended)


def test_a_record_wins_over_events_and_lacks_the_gpu() -> None:
    shown = StepProgress("train", "running", 1, attempt=1, gpu="T4", reason="It was killed.")
    step = shown.recorded_as(replace(RECORDED, status="failed", attempt=2))
    assert (step.state, step.attempt, step.gpu) == ("failed", 2, "T4")
    assert step.reason == "It was killed."
    failure = Failure("no", "ValueError", "train.py:3", ("  raise ValueError('no')",))
    recorded = shown.recorded_as(replace(RECORDED, failure=failure))
    assert (recorded.reason, recorded.failure) == ("ValueError: no (train.py:3)", failure)


@pytest.mark.parametrize(("state", "shown"), [("waiting", "not run"), ("starting", "starting")])
def test_events_count_where_zenml_was_not_asked(state: str, shown: str) -> None:
    assert StepProgress("train", state).recorded_as(None).state == shown


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        *((state, "not run") for state in ("waiting", "starting", "running", "stopped")),
        ("failed", "failed"),
    ],
)
def test_a_step_that_zenml_has_no_record_of_did_not_run(state: str, shown: str) -> None:
    step = StepProgress("train", state, 1.0).recorded_as(StepRecord("train", NOT_RUN))
    assert (step.state, step.final) == (shown, True)
