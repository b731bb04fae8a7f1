"""Stop a run: gracefully, by force, while it is submitted, and after its end."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from modalrun.control import stop as stopping
from modalrun.control.stop import Stopped, by_force
from modalrun.errors import ConnectionLostError, NotFoundError
from modalrun.run.metadata import Announced, RunMetadata
from modalrun.run.sandbox_exit import read_exit
from modalrun.run.status import SandboxState
from tests.unit.fake_zenml import FakeZenML
from tests.unit.fakes import RUN_ID, Effects, FakeModal

METADATA = RunMetadata("modal", "per_step", "an-app", "ap-1", "sb-1", 600)


class FakeClock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds


class Bench:
    """A run and everything that `stop` uses."""

    def __init__(self, status: str = "running", *, started: bool = True) -> None:
        self.effects = Effects()
        self.zenml = FakeZenML(self.effects, status)
        self.modal = FakeModal(self.effects)
        self.clock = FakeClock()
        self.messages: list[str] = []
        if started:
            self.zenml.run = replace(self.zenml.run, metadata=METADATA)

    def stop(self, *, force: bool = False, wait: bool = True) -> Stopped:
        return stopping.stop(
            RUN_ID,
            force=force,
            wait=wait,
            say=self.messages.append,
            zenml=self.zenml,
            modal=self.modal,
            clock=self.clock,
        )

    def announce(self, *, withdrawn: bool = False) -> None:
        announced = Announced("modal", "pipeline", "an-app", None, withdrawn)
        self.zenml.run = replace(self.zenml.run, announced=announced)


def test_graceful_waits_for_the_driver_and_records_the_end() -> None:
    bench = Bench()
    bench.zenml.unfinished = ("train", "test")
    stopped = bench.stop()
    assert stopped == Stopped(RUN_ID, "stopped", f"The run {RUN_ID} is stopped.")
    assert bench.effects == [
        "connect modal",
        "ask to stop",
        "record stop request",
        "wait for the run sandbox",
        "read run and steps",
        "finalize run",
    ]
    assert bench.messages == [
        f"The run {RUN_ID} was asked to stop; waiting for the running steps to finish:"
        " train, test.",
        "Ctrl-C detaches; --force ends it now.",
    ]


def test_graceful_without_waiting() -> None:
    bench = Bench()
    assert bench.stop(wait=False).headline == f"The run {RUN_ID} was asked to stop."
    assert bench.effects == ["connect modal", "ask to stop", "record stop request"]
    assert not bench.messages


def test_graceful_without_a_driver_waits_for_its_steps() -> None:
    bench = Bench()
    bench.modal.sandboxes.run, bench.modal.sandboxes.steps = 0, 2
    assert bench.stop().status == "stopped"
    assert bench.effects == [
        "connect modal",
        "ask to stop",
        "read run and steps",
        "wait for steps",
        "ask Modal",
        "finalize run",
    ]
    assert bench.messages == [
        f"The run {RUN_ID} has no driver any more; step sandboxes that still run: 2. Waiting for"
        " them to finish."
    ]


def test_graceful_without_a_driver_and_without_waiting_changes_nothing() -> None:
    bench = Bench()
    bench.modal.sandboxes.run, bench.modal.sandboxes.steps = 0, 2
    stopped = bench.stop(wait=False)
    assert stopped.status == "running"
    assert "step sandboxes that still run: 2" in stopped.headline
    assert f"modalrun stop {RUN_ID}" in stopped.headline
    assert bench.effects == ["connect modal", "ask to stop", "read run and steps"]


def test_a_run_that_completes_before_it_stops() -> None:
    bench = Bench()

    def complete() -> None:
        if "finalize run" in bench.effects:
            bench.zenml.run = replace(bench.zenml.run, status="completed")

    bench.zenml.on_read = complete
    headline = f"The run {RUN_ID} ended before it stopped: completed."
    assert bench.stop() == Stopped(RUN_ID, "completed", headline)


def test_by_force_ends_sandboxes_between_two_records() -> None:
    bench = Bench()
    assert bench.stop(force=True).headline == f"The run {RUN_ID} is stopped."
    assert bench.effects == [
        "connect modal",
        "ask Modal",
        "mark stopping",
        "read run and steps",
        "end sandboxes",
        "finalize run",
        "end sandboxes",
    ]
    assert bench.zenml.reasons == ["The run was stopped by force."]


@pytest.mark.parametrize(
    ("force", "then"),
    [(False, "the run was asked to stop."), (True, "the run was stopped by force.")],
)
def test_the_reason_of_a_stopped_lost_run_says_that_its_sandbox_had_ended(
    force: bool, then: str
) -> None:
    bench = Bench()
    bench.modal.sandboxes.run = 0
    bench.modal.state = SandboxState("ended", read_exit(137))
    assert bench.stop(force=force).status == "stopped"
    how = "was ended from outside (exit code 137)"
    assert bench.zenml.reasons == [f"The run sandbox {how}; then {then}"]


def test_by_force_without_waiting_ends_sandboxes_once() -> None:
    bench = Bench()
    bench.stop(force=True, wait=False)
    assert bench.effects.count("end sandboxes") == 1


def test_by_force_ends_sandboxes_while_zenml_is_away() -> None:
    bench = Bench()
    bench.effects.errors["mark stopping"] = ConnectionLostError("ZenML does not answer.")
    with pytest.raises(ConnectionLostError) as caught:
        by_force(RUN_ID, bench.modal.sandboxes, zenml=bench.zenml)
    assert bench.effects == ["mark stopping", "end sandboxes"]
    assert "have ended" in caught.value.message
    assert "ZenML does not answer." in caught.value.message
    assert f"modalrun stop {RUN_ID}" in str(caught.value.hint)


def test_by_force_does_not_wait_for_a_server_that_has_trouble() -> None:
    bench = Bench()
    ended, mark = threading.Event(), bench.zenml.mark_stopping
    terminate = bench.modal.sandboxes.terminate

    def mark_late(run_id: str, reason: str) -> bool:
        assert ended.wait(30)
        return mark(run_id, reason)

    def end(**options: Any) -> int:
        count = terminate(**options)
        ended.set()
        return count

    bench.zenml.mark_stopping = mark_late  # type: ignore[method-assign]
    bench.modal.sandboxes.terminate = end  # type: ignore[method-assign]
    stopped = by_force(RUN_ID, bench.modal.sandboxes, seconds=0.3, zenml=bench.zenml)
    assert stopped.status == "stopped"
    assert bench.effects == [
        "end sandboxes",
        "mark stopping",
        "read run and steps",
        "finalize run",
        "end sandboxes",
    ]


def test_sandboxes_that_may_still_run_leave_the_record_open() -> None:
    bench = Bench()
    bench.effects.errors["end sandboxes"] = ConnectionLostError("Modal does not answer.")
    with pytest.raises(ConnectionLostError, match="Modal does not answer"):
        bench.stop(force=True)
    assert "finalize run" not in bench.effects


@pytest.mark.parametrize("force", [False, True])
def test_a_finished_run_is_left_as_it_is(force: bool) -> None:
    bench = Bench("completed", started=force)
    bench.modal.sandboxes.run = 0
    stopped = bench.stop(force=force)
    assert stopped.headline == f"The run {RUN_ID} has ended already: completed."
    assert not {"mark stopping", "finalize run"} & set(bench.effects)


@pytest.mark.parametrize(("left", "text"), [(1, "one sandbox"), (3, "3 sandboxes")])
def test_force_ends_what_a_finished_run_left_running(left: int, text: str) -> None:
    bench = Bench("failed")
    bench.modal.sandboxes.run, bench.modal.sandboxes.steps = 0, left
    assert f"Terminated {text} that still ran." in bench.stop(force=True).headline


def test_the_token_of_the_stack_is_used() -> None:
    bench = Bench()
    bench.zenml.credentials = ("ak-1", "as-1")
    bench.stop()
    assert bench.modal.credentials == ("ak-1", "as-1")


def test_a_submission_is_cancelled_by_its_own_process() -> None:
    bench = Bench(started=False)
    bench.announce()

    def withdraw() -> None:
        if "mark stopping" in bench.effects:
            bench.announce(withdrawn=True)

    bench.zenml.on_read = withdraw
    assert bench.stop().status == "stopped"
    assert bench.effects == [
        "connect modal",
        "mark stopping",
        "connect modal",
        "mark stopping",
        "read run and steps",
        "end sandboxes",
        "finalize run",
        "end sandboxes",
    ]
    assert bench.clock.now < stopping.CANCEL_SECONDS
    assert bench.messages == [
        f"The run {RUN_ID} has no sandbox yet; waiting up to 30 s until the process"
        " that submits it has cancelled it."
    ]


def test_a_submission_whose_process_is_gone_is_ended_here() -> None:
    bench = Bench(started=False)
    bench.announce()
    assert bench.stop().status == "stopped"
    assert bench.clock.now >= stopping.CANCEL_SECONDS
    # A second time for what the driver was creating.
    assert bench.effects[-3:] == ["end sandboxes", "finalize run", "end sandboxes"]


def test_a_submission_whose_app_was_not_created_yet() -> None:
    bench = Bench(started=False)
    bench.announce(withdrawn=True)
    bench.modal.app = None
    assert bench.stop().status == "stopped"
    assert "end sandboxes" not in bench.effects


def test_a_submission_is_not_waited_for() -> None:
    bench = Bench(started=False)
    bench.announce()
    assert bench.stop(wait=False).headline == f"The run {RUN_ID} was asked to stop."
    assert bench.effects[-1:] == ["mark stopping"]


def test_a_sandbox_that_its_submission_could_not_record_ends_at_once() -> None:
    bench = Bench(started=False)
    bench.announce()
    bench.modal.found = METADATA
    assert bench.stop(force=True).status == "stopped"
    assert "end sandboxes" in bench.effects
    assert not bench.messages
    assert not bench.clock.now


@pytest.mark.parametrize("announced", [False, True])
def test_a_submission_that_gets_its_sandbox_meanwhile_is_stopped(announced: bool) -> None:
    bench = Bench(started=False)
    if announced:
        bench.announce()

    def start() -> None:
        if bench.clock.now > 1:
            bench.zenml.run = replace(bench.zenml.run, metadata=METADATA)

    bench.zenml.on_read = start
    assert bench.stop().status == "stopped"
    assert "ask to stop" in bench.effects


def test_a_submission_that_fails_meanwhile() -> None:
    bench = Bench(started=False)

    def fail() -> None:
        if bench.clock.now:
            bench.zenml.run = replace(bench.zenml.run, status="failed")

    bench.zenml.on_read = fail
    assert bench.stop().headline == f"The run {RUN_ID} has ended already: failed."
    assert not bench.effects


@pytest.mark.parametrize("withdrawn", [True, False])
def test_a_sandbox_that_came_after_its_submission_was_cancelled(withdrawn: bool) -> None:
    bench = Bench(started=False)
    bench.announce(withdrawn=withdrawn)
    bench.zenml.run = replace(bench.zenml.run, status="stopped")
    assert "has ended already: stopped" in bench.stop().headline
    assert bench.effects == []
    assert "has ended already: stopped" in bench.stop(force=True).headline
    assert ("end sandboxes" in bench.effects) == (not withdrawn)


def test_a_run_that_has_no_sandbox_on_record() -> None:
    bench = Bench(started=False)
    with pytest.raises(NotFoundError, match="no sandbox on record") as caught:
        bench.stop()
    assert bench.clock.now > stopping.ANNOUNCE_SECONDS
    assert not bench.effects
    assert f"'modalrun reconcile --force {RUN_ID}'" in str(caught.value.hint)


@pytest.mark.parametrize(("force", "option"), [(False, ""), (True, " --force")])
def test_the_run_of_a_child_pipeline_names_its_parent(force: bool, option: str) -> None:
    bench = Bench(started=False)
    bench.zenml.run = replace(bench.zenml.run, parent="a-parent")
    with pytest.raises(NotFoundError, match="child pipeline") as caught:
        bench.stop(force=force)
    assert f"'modalrun stop a-parent{option}'" in str(caught.value.hint)
    assert (bench.clock.now, bench.effects) == (0, [])


UNKNOWN = SandboxState("unknown", not_found=True, problem="Modal knows no sandbox sb-1.")


def test_a_run_that_is_elsewhere_is_left_as_it_is() -> None:
    bench = Bench()
    bench.modal.app, bench.modal.state = None, UNKNOWN
    with pytest.raises(NotFoundError, match="from here: Modal knows no sandbox sb-1"):
        bench.stop()
    assert bench.effects == ["connect modal", "ask Modal"]


def test_a_run_that_ended_elsewhere_needs_no_stop() -> None:
    bench = Bench("completed")
    bench.modal.app, bench.modal.state = None, UNKNOWN
    bench.modal.sandboxes.run = 0
    assert bench.stop(force=True).status == "completed"


@pytest.mark.parametrize("force", [False, True])
def test_a_stop_says_if_the_sandbox_could_not_be_seen(force: bool) -> None:
    bench = Bench()
    bench.modal.sandboxes.run, bench.modal.state = 0, UNKNOWN
    assert bench.stop(force=force).status == "stopped"
    unseen = "Whether its sandbox still runs could not be checked: Modal knows no sandbox sb-1."
    assert bench.messages == [unseen]


def test_the_sandboxes_are_looked_for_where_the_run_is_and_where_it_could_be() -> None:
    bench = Bench()
    bench.zenml.run = replace(bench.zenml.run, metadata=replace(METADATA, environment="dev"))
    bench.stop(force=True)
    assert bench.modal.apps == ["dev", None], "a step can change the record"
