"""ZenML's record beside Modal's word."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from modalrun.run.events import StepEvent
from modalrun.run.failure import Failure
from modalrun.run.metadata import Announced, RunMetadata, StepMetadata
from modalrun.run.records import NOT_RUN, RunRecord, StepRecord
from modalrun.run.sandbox_exit import ModalStatus, SandboxExit, read_exit
from modalrun.run.status import (
    GOES_ON,
    LOST,
    NOT_ASKED,
    SandboxState,
    derive_status,
    may_be_rerun,
    needs_modal,
    with_events,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
FACTS = RunMetadata("modal", "pipeline", "app", "ap-1", "sb-1", 600)
RUN = RunRecord("id", "name", "training", "running", NOON, NOON, metadata=FACTS)
RUNNING = SandboxState("running")
KILLED = SandboxState("ended", read_exit(137))
STOPPED = read_exit(137, 3, "The local Modal server was stopped.")


def finished(status: str) -> RunRecord:
    return replace(RUN, status=status, end=NOON + timedelta(minutes=1))


def at(second: float) -> float:
    return (NOON + timedelta(seconds=second)).timestamp()


def test_a_run_goes_on_where_both_say_so() -> None:
    view = derive_status(RUN, [], RUNNING)
    assert (view.state, view.over, view.exit_code, view.notes) == ("running", False, None, ())


@pytest.mark.parametrize(
    ("mode", "dynamic", "known"),
    [("pipeline", False, True), ("per_step", False, False), ("per_step", True, True)],
)
def test_only_a_step_that_shares_the_run_sandbox_has_its_resources(
    mode: Any, *, dynamic: bool, known: bool
) -> None:
    run = replace(RUN, metadata=replace(FACTS, mode=mode), dynamic=dynamic)
    own = StepRecord("own", "failed", metadata=StepMetadata("sb-2"))
    view = derive_status(run, [lost := StepRecord("lost", "failed"), own], RUNNING)
    assert view.sandbox_of(lost) == (run.metadata if known else None)
    assert view.sandbox_of(own) == own.metadata


def test_a_run_of_which_a_step_has_failed_goes_on_or_is_lost() -> None:
    failing = replace(RUN, failing=True)
    steps = [StepRecord("a", "failed"), StepRecord("b", "running")]
    view = derive_status(failing, steps, RUNNING)
    assert (view.state, view.over, view.exit_code) == ("running", False, None)
    assert [note.text for note in view.notes] == [GOES_ON]
    lost = derive_status(failing, steps, KILLED)
    assert (lost.state, lost.over) == (LOST, True)
    assert lost.notes[0].text.startswith("ZenML says 'failed', but the run sandbox")


@pytest.mark.parametrize("found", [True, False])
def test_a_submission_that_waits_says_for_what(found: bool) -> None:
    announced = Announced("modal", "pipeline", "app", waiting="waiting for H100, next: A100")
    run = replace(RUN, status="initializing", announced=announced)
    run = run if found else replace(run, metadata=None)
    view = derive_status(run, [], RUNNING)
    assert [note.text for note in view.notes] == ["Its submission is waiting for H100, next: A100."]
    assert view.presence == "waiting"
    assert derive_status(run, [], NOT_ASKED).presence == "not asked"
    # Its sandbox has been recorded since.
    begun = derive_status(replace(RUN, announced=announced), [], RUNNING)
    assert (begun.notes, begun.presence) == ((), "running")


def test_a_step_that_waits_says_for_what() -> None:
    event = StepEvent("train", "starting", at(5), awaits="H100", following="A100")
    view = derive_status(RUN, [StepRecord("train", "not run")], RUNNING)
    (step,) = with_events(view, {"train": event}).steps
    assert (step.status, step.reason) == ("starting", "waiting for H100, next: A100")


def test_what_the_driver_has_stored_says_so_too() -> None:
    waits = {"load": "waiting for H100", "train": "waiting for T4", "gone": "waiting for T4"}
    run = replace(RUN, metadata=replace(FACTS, step_waits=waits))
    before = StepMetadata("sb-2", exit_code=137, exit_reason="It was killed.")
    steps = [
        StepRecord("load", "running"),
        StepRecord("train", "retrying", metadata=before),
        StepRecord("report", "not run"),
    ]
    load, train, report = derive_status(run, steps, RUNNING).steps
    assert load == steps[0]
    # The word of the summary of `submit`, while the run goes on.
    assert report == replace(steps[2], status="waiting")
    assert (train.status, train.reason) == ("starting", "waiting for T4")
    assert train.metadata and train.metadata.exit_code is None
    # Nothing waits in a run whose driver is gone.
    assert derive_status(run, steps, KILLED).steps[1] == steps[1]


def test_that_a_run_was_asked_to_stop_is_seen_until_it_has_ended() -> None:
    asked = replace(RUN, metadata=replace(FACTS, stop_requested=True))
    steps = [StepRecord("load", "completed"), StepRecord("train", "running")]
    (note,) = derive_status(asked, steps, RUNNING).notes
    assert note.text == "It was asked to stop; running steps may finish: train."
    (note,) = derive_status(asked, steps[:1], RUNNING).notes
    assert note.text == "It was asked to stop; nothing new starts."
    ended = replace(asked, status="stopped", end=NOON + timedelta(minutes=1))
    assert derive_status(ended, steps, NOT_ASKED).notes == ()


@pytest.mark.parametrize(
    ("modal", "exit_code", "says"),
    [
        (KILLED, 7, "was ended from outside (exit code 137)"),
        (SandboxState("ended", read_exit(124)), 6, "has reached its timeout"),
        (
            SandboxState("ended", read_exit(137, 10)),
            1,
            "the run sandbox ran out of memory; nothing",
        ),
        (SandboxState("ended", read_exit(137, 8)), 1, "was evicted by Modal"),
        (SandboxState("ended", STOPPED), 7, "was ended when the local Modal server was stopped"),
        (SandboxState("ended", read_exit(1)), 1, "has ended (exit code 1)"),
        (SandboxState("ended", read_exit(0)), 1, "has ended (exit code 0)"),
    ],
)
def test_a_run_whose_sandbox_has_ended_is_lost(
    modal: SandboxState, exit_code: int, says: str
) -> None:
    view = derive_status(RUN, [StepRecord("train", "running")], modal)
    assert (view.state, view.over, view.exit_code) == (LOST, True, exit_code)
    assert view.steps[0].status == "lost"
    (note,) = view.notes
    assert says in note.text and "ZenML says 'running'" in note.text
    assert note.commands == ("modalrun reconcile id",)


def test_a_driver_that_is_gone_can_be_replaced() -> None:
    run = replace(RUN, metadata=replace(FACTS, mode="per_step"))
    view = derive_status(run, [], KILLED)
    assert view.over
    assert view.notes[0].commands == ("modalrun resume id", "modalrun reconcile id")

    view = derive_status(run, [], replace(KILLED, step_sandboxes=frozenset({"sb-2", "sb-3"})))
    assert (view.state, view.over, view.exit_code) == (LOST, False, None)
    assert "2 step sandboxes still run" in view.notes[0].text
    assert view.notes[0].commands == ("modalrun resume id", "modalrun stop id")
    # Nobody wants to continue what is being stopped.
    view = derive_status(replace(run, status="stopping"), [], KILLED)
    assert view.notes[0].commands == ("modalrun reconcile id",)


@pytest.mark.parametrize(
    "end",
    [
        read_exit(137, 8),
        read_exit(137, 6),
        read_exit(130),
        read_exit(0, ModalStatus.FAILURE),
        read_exit(1, 5),
    ],
)
def test_a_run_that_can_be_resumed_has_one_exit_code(end: SandboxExit) -> None:
    run = replace(RUN, metadata=replace(FACTS, mode="per_step"))
    assert derive_status(run, [], SandboxState("ended", end)).exit_code == 7


def test_a_run_without_a_sandbox_has_the_exit_code_of_its_submission() -> None:
    announced = Announced("modal", "pipeline", "app", exit_code=5)
    run = replace(finished("failed"), metadata=None, announced=announced)
    view = derive_status(run, [], NOT_ASKED)
    assert (view.exit_code, view.headline) == (5, "Run failed: its sandbox was not created.")
    assert view.next == "nothing of it ran: submit it again once the reason is gone"


def test_a_run_without_a_sandbox_has_no_files_for_a_rerun() -> None:
    announced = Announced("modal", "pipeline", "app", None)
    assert may_be_rerun(finished("failed"))
    assert not may_be_rerun(replace(finished("failed"), metadata=None, announced=announced))
    assert not may_be_rerun(finished("completed"))


def test_what_could_not_be_checked_is_not_called_lost() -> None:
    view = derive_status(RUN, [], SandboxState("unknown", problem="There is no Modal token."))
    assert (view.state, view.over, view.exit_code) == ("running", False, None)
    assert "could not be checked: There is no Modal token." in view.notes[0].text

    strange = derive_status(replace(RUN, metadata=None), [], NOT_ASKED)
    assert (strange.state, strange.over) == ("running", False)
    assert "no sandbox is recorded" in strange.notes[0].text
    assert "modalrun did not start it" in strange.notes[0].text
    assert "'modalrun reconcile --force id' records its end." in strange.notes[0].text


def test_a_run_without_a_sandbox_says_whose_it_is() -> None:
    run = replace(RUN, metadata=None)
    (submitted,) = derive_status(
        replace(run, announced=Announced("modal", "pipeline", "app")), [], NOT_ASKED
    ).notes
    assert "it is being submitted" in submitted.text and "'modalrun stop id'" in submitted.text
    (child,) = derive_status(replace(run, parent="a-parent"), [], NOT_ASKED).notes
    assert "A child pipeline" in child.text and "a-parent" in child.text
    assert child.commands == ("modalrun status a-parent",)
    (paused,) = derive_status(replace(run, parent="a-parent", status="paused"), [], NOT_ASKED).notes
    assert paused.commands[0].endswith("--run id") and paused.commands[1:] == child.commands


@pytest.mark.parametrize(
    "modal", [SandboxState("ended", read_exit(0)), SandboxState("unknown", problem="It is gone.")]
)
def test_a_run_that_waits_for_somebody_needs_no_sandbox(modal: SandboxState) -> None:
    view = derive_status(replace(RUN, status="paused"), [], modal)
    assert (view.state, view.over, view.exit_code) == ("paused", True, 0)
    assert view.headline == "Run paused: it goes on when it is answered, and then resumed."
    assert view.notes[0].commands[1] == "modalrun resume id"

    # A child waits, or a child's child, by an id of its own.
    child, deep = (replace(RUN, id=name, status="paused") for name in ("child", "deep"))
    children = {"inner": replace(child, parent="id"), "inner/deep": replace(deep, parent="child")}
    done = {"first": replace(RUN, id="done", status="completed", parent="id")}
    view = derive_status(replace(RUN, status="paused", children=children | done), [], modal)
    *answers, resume = view.notes[0].commands
    assert [answer.rpartition(" ")[2] for answer in answers] == ["deep"]
    assert resume == "modalrun resume id"

    # It is about to end.
    assert not derive_status(replace(RUN, status="paused"), [], RUNNING).over


@pytest.mark.parametrize(
    ("status", "modal", "exit_code"),
    [
        ("completed", NOT_ASKED, 0),
        ("completed", KILLED, 0),
        ("stopped", NOT_ASKED, 7),
        ("failed", NOT_ASKED, None),
        ("failed", SandboxState("ended", read_exit(1)), 1),
        ("failed", SandboxState("ended", read_exit(124)), 6),
        ("failed", KILLED, 7),
        ("failed", SandboxState("unknown", problem="Modal can't be reached."), 1),
    ],
)
def test_the_exit_code_of_a_finished_run(
    status: str, modal: SandboxState, exit_code: int | None
) -> None:
    view = derive_status(finished(status), [], modal)
    assert (view.state, view.over, view.exit_code) == (status, True, exit_code)
    assert bool(view.notes) == (modal.problem is not None)


@pytest.mark.parametrize(
    ("reason", "end"),
    [
        ("The run took longer than its timeout of 600 s. `a` has waited 9 s.", read_exit(124)),
        ("The sandbox received a termination signal.", read_exit(143)),
        ("The run sandbox ended (out of memory, exit code 137).", read_exit(137, 10)),
        (
            "The run sandbox ran out of memory; recorded by 'modalrun reconcile'.",
            read_exit(137, 10),
        ),
        ("The run sandbox ended with exit code 137; recorded by 'modalrun reconcile'.", KILLED.end),
    ],
)
def test_what_the_record_says_of_a_failure_is_told_without_modal(
    reason: str, end: SandboxExit
) -> None:
    run = replace(finished("failed"), reason=reason)
    told = derive_status(run, [], NOT_ASKED)
    asked = derive_status(run, [], SandboxState("ended", end))
    assert (told.exit_code, told.headline) == (asked.exit_code, asked.headline)
    assert told.headline != "Run failed."


def test_a_failed_step_whose_retries_did_not_come_is_in_the_headline() -> None:
    run = replace(finished("failed"), reason="The runner was killed (SIGKILL).")
    killed = Failure("The runner was killed (SIGKILL).", lines=("about to be killed",))
    steps = [StepRecord("load", "completed"), StepRecord("train", "stopped", failure=killed)]
    assert derive_status(run, steps, NOT_ASKED).headline == "Run failed: train."


def test_modal_is_asked_only_where_it_matters() -> None:
    assert needs_modal(RUN, with_exit_code=False)
    assert not needs_modal(replace(RUN, metadata=None), with_exit_code=True)
    for status in ("completed", "stopped", "failed"):
        assert not needs_modal(finished(status), with_exit_code=False)
        assert needs_modal(finished(status), with_exit_code=True) == (status == "failed")


WAITING = StepRecord("train", "not run")


def brought_up_to_date(step: StepRecord, event: StepEvent) -> StepRecord:
    (result,) = with_events(derive_status(RUN, [step], RUNNING), {event.step: event}).steps
    return result


def test_the_driver_is_ahead_of_zenml() -> None:
    event = StepEvent("train", "running", at(5), sandbox="sb-2", gpu="T4", cpu=2)
    step = brought_up_to_date(WAITING, event)
    # Its sandbox is there; the step's time begins with its record.
    assert (step.status, step.attempt, step.start, step.end) == ("starting", 1, None, None)
    begun = NOON + timedelta(seconds=9)
    recorded = brought_up_to_date(replace(WAITING, status="running", start=begun), event)
    assert (recorded.status, recorded.start) == ("running", begun)
    adopted = brought_up_to_date(WAITING, replace(event, began=at(3)))
    assert (adopted.status, adopted.start) == ("running", NOON + timedelta(seconds=3))
    assert step.metadata == StepMetadata("sb-2", gpu="T4", cpu=2)


def test_a_sandbox_that_replaces_a_lost_one_is_no_further_try() -> None:
    began = NOON + timedelta(seconds=2)
    lost = replace(WAITING, status="running", start=began)
    starting = StepEvent("train", "starting", at(30), 2, restarts=1)
    for event in (starting, replace(starting, state="running", sandbox="sb-2")):
        step = brought_up_to_date(lost, event)
        assert (step.status, step.attempt, step.start) == (event.state, 1, began)
    step = brought_up_to_date(lost, replace(starting, restarts=0))
    assert (step.attempt, step.start) == (2, None)


def test_the_drivers_end_of_a_step_carries_its_reason() -> None:
    event = StepEvent("train", "failed", at(9), 2, "sb-2", exit_code=137, reason="It was killed.")
    step = brought_up_to_date(replace(WAITING, status="running", start=NOON), event)
    assert (step.status, step.attempt, step.end) == ("failed", 2, NOON + timedelta(seconds=9))
    assert step.metadata is not None
    assert (step.metadata.exit_code, step.metadata.exit_reason) == (137, "It was killed.")


def test_zenmls_end_of_a_step_stays_unless_a_new_attempt_has_begun() -> None:
    ended = StepRecord("train", "failed", 1, NOON, NOON + timedelta(seconds=10))
    assert brought_up_to_date(ended, StepEvent("train", "running", at(5))).status == "failed"
    again = brought_up_to_date(ended, StepEvent("train", "running", at(12), 2, "sb-3"))
    assert (again.status, again.attempt, again.end) == ("starting", 2, None)
    assert again.metadata is not None and again.metadata.sandbox_id == "sb-3"


def test_events_say_nothing_of_a_run_that_is_over() -> None:
    view = derive_status(finished("stopped"), [WAITING], NOT_ASKED)
    assert with_events(view, {"train": StepEvent("train", "running", at(5))}) == view


@pytest.mark.parametrize(
    ("changes", "states"),
    [
        ({}, ["failed", "not run", "not run", "waiting"]),
        ({"starts_nothing": True}, ["failed", "not run", "not run", "not run"]),
        ({"status": "stopping"}, ["failed", "not run", "not run", "not run"]),
        (
            {"metadata": replace(FACTS, stop_requested=True)},
            ["failed", "not run", "not run", "not run"],
        ),
    ],
    ids=["others go on", "no more begin", "stopping", "asked to stop"],
)
def test_a_step_that_will_not_run_does_not_wait(changes: dict[str, Any], states: list[str]) -> None:
    steps = [
        StepRecord("fails", "failed"),
        StepRecord("after", NOT_RUN, upstream=("fails",)),
        StepRecord("last", NOT_RUN, upstream=("other", "after")),
        StepRecord("other", NOT_RUN),
    ]
    run = replace(RUN, failing=True, **changes)

    status = derive_status(run, steps, RUNNING)

    assert [step.status for step in status.steps] == states
