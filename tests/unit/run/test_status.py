"""ZenML's record beside Modal's word."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from modalrun.run.events import StepEvent
from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.records import KnownRun, KnownStep
from modalrun.run.sandbox_exit import read_exit
from modalrun.run.status import LOST, NOT_ASKED, ModalView, judge, needs_modal, with_events

NOON = datetime(2026, 11, 23, 12)
FACTS = RunMetadata("modal", "pipeline", "app", "ap-1", "sb-1", 600)
RUN = KnownRun("id", "name", "training", "running", False, NOON, NOON, facts=FACTS)
RUNNING = ModalView("running")
KILLED = ModalView("ended", read_exit(137))


def finished(status: str) -> KnownRun:
    return replace(RUN, status=status, finished=True, end=NOON + timedelta(minutes=1))


def at(second: float) -> float:
    return (NOON + timedelta(seconds=second)).replace(tzinfo=timezone.utc).timestamp()


def test_a_run_goes_on_where_both_say_so() -> None:
    view = judge(RUN, [], RUNNING)
    assert (view.state, view.over, view.exit_code, view.notes) == ("running", False, None, ())


def test_that_a_run_was_asked_to_stop_is_seen_until_it_has_ended() -> None:
    asked = replace(RUN, facts=replace(FACTS, stop_requested=True))
    steps = [KnownStep("load", "completed"), KnownStep("train", "running")]
    (note,) = judge(asked, steps, RUNNING).notes
    assert note.text == "It was asked to stop; what runs may finish: train."
    (note,) = judge(asked, steps[:1], RUNNING).notes
    assert note.text == "It was asked to stop; nothing new starts."
    ended = replace(asked, status="stopped", finished=True, end=NOON + timedelta(minutes=1))
    assert judge(ended, steps, NOT_ASKED).notes == ()


@pytest.mark.parametrize(
    ("modal", "exit_code", "says"),
    [
        (KILLED, 7, "was ended from outside (exit code 137)"),
        (ModalView("ended", read_exit(124)), 6, "has reached its timeout"),
        (ModalView("ended", read_exit(1)), 1, "has ended (exit code 1)"),
        (ModalView("ended", read_exit(0)), 1, "has ended (exit code 0)"),
    ],
)
def test_a_run_whose_sandbox_has_ended_is_lost(modal: ModalView, exit_code: int, says: str) -> None:
    view = judge(RUN, [], modal)
    assert (view.state, view.over, view.exit_code) == (LOST, True, exit_code)
    (note,) = view.notes
    assert says in note.text and "ZenML says 'running'" in note.text
    assert note.commands == ("modalrun reconcile id",)


def test_a_driver_that_is_gone_can_be_replaced() -> None:
    run = replace(RUN, facts=replace(FACTS, mode="per_step"))
    view = judge(run, [], KILLED)
    assert view.over
    assert view.notes[0].commands == ("modalrun resume id", "modalrun reconcile id")

    view = judge(run, [], replace(KILLED, step_sandboxes=frozenset({"sb-2", "sb-3"})))
    assert (view.state, view.over, view.exit_code) == (LOST, False, None)
    assert "2 step sandboxes still run" in view.notes[0].text
    assert view.notes[0].commands == ("modalrun resume id", "modalrun stop id")


def test_what_could_not_be_checked_is_not_called_lost() -> None:
    view = judge(RUN, [], ModalView("unknown", problem="There is no Modal token."))
    assert (view.state, view.over, view.exit_code) == ("running", False, None)
    assert "could not be checked: There is no Modal token." in view.notes[0].text

    strange = judge(replace(RUN, facts=None), [], NOT_ASKED)
    assert (strange.state, strange.over) == ("running", False)
    assert "no sandbox is recorded" in strange.notes[0].text


@pytest.mark.parametrize(
    "modal", [ModalView("ended", read_exit(0)), ModalView("unknown", problem="It is gone.")]
)
def test_a_run_that_waits_for_somebody_needs_no_sandbox(modal: ModalView) -> None:
    view = judge(replace(RUN, status="paused"), [], modal)
    assert (view.state, view.over, view.exit_code) == ("paused", True, 0)
    assert view.headline == "Run paused: it waits for somebody's answer."
    assert view.notes[0].commands[1] == "zenml pipeline runs resume id"
    # Of a driver's run is kept how to go on with it.
    per_step = replace(RUN, status="paused", facts=replace(FACTS, mode="per_step"))
    assert judge(per_step, [], modal).notes[0].commands[1] == "modalrun resume id"

    # It is about to end.
    assert not judge(replace(RUN, status="paused"), [], RUNNING).over


@pytest.mark.parametrize(
    ("status", "modal", "exit_code"),
    [
        ("completed", NOT_ASKED, 0),
        ("completed", KILLED, 0),
        ("stopped", NOT_ASKED, 7),
        ("failed", NOT_ASKED, None),
        ("failed", ModalView("ended", read_exit(1)), 1),
        ("failed", ModalView("ended", read_exit(124)), 6),
        ("failed", KILLED, 7),
        ("failed", ModalView("unknown", problem="Modal can't be reached."), 1),
    ],
)
def test_the_exit_code_of_a_finished_run(
    status: str, modal: ModalView, exit_code: int | None
) -> None:
    view = judge(finished(status), [], modal)
    assert (view.state, view.over, view.exit_code) == (status, True, exit_code)
    assert bool(view.notes) == (modal.problem is not None)


def test_modal_is_asked_only_where_it_matters() -> None:
    assert needs_modal(RUN, exit_wanted=False)
    assert not needs_modal(replace(RUN, facts=None), exit_wanted=True)
    for status in ("completed", "stopped", "failed"):
        assert not needs_modal(finished(status), exit_wanted=False)
        assert needs_modal(finished(status), exit_wanted=True) == (status == "failed")


WAITING = KnownStep("train", "not run")


def brought_up_to_date(step: KnownStep, event: StepEvent) -> KnownStep:
    (result,) = with_events(judge(RUN, [step], RUNNING), {event.step: event}).steps
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
    assert step.facts == StepMetadata("sb-2", gpu="T4", cpu=2)


def test_the_drivers_end_of_a_step_carries_its_reason() -> None:
    event = StepEvent("train", "failed", at(9), 2, "sb-2", exit_code=137, reason="It was killed.")
    step = brought_up_to_date(replace(WAITING, status="running", start=NOON), event)
    assert (step.status, step.attempt, step.end) == ("failed", 2, NOON + timedelta(seconds=9))
    assert step.facts is not None
    assert (step.facts.exit_code, step.facts.exit_reason) == (137, "It was killed.")


def test_zenmls_end_of_a_step_stays_unless_a_new_attempt_has_begun() -> None:
    ended = KnownStep("train", "failed", 1, NOON, NOON + timedelta(seconds=10))
    assert brought_up_to_date(ended, StepEvent("train", "running", at(5))).status == "failed"
    again = brought_up_to_date(ended, StepEvent("train", "running", at(12), 2, "sb-3"))
    assert (again.status, again.attempt, again.end) == ("starting", 2, None)
    assert again.facts is not None and again.facts.sandbox_id == "sb-3"


def test_events_say_nothing_of_a_run_that_is_over() -> None:
    view = judge(finished("stopped"), [WAITING], NOT_ASKED)
    assert with_events(view, {"train": StepEvent("train", "running", at(5))}) == view
