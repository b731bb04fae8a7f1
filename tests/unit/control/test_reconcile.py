"""Record the end of a run whose sandbox has ended: lost, paused, alive, unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modalrun.control.reconcile import Reconciled, reconcile
from modalrun.errors import ConnectionLostError, NotFoundError, UsageError
from modalrun.run.metadata import RunMetadata
from modalrun.run.sandbox_exit import read_exit
from modalrun.run.status import RunStatus, SandboxState, derive_status
from tests.unit.fake_zenml import FakeZenML
from tests.unit.fakes import Effects, FakeModal

PIPELINE = RunMetadata("modal", "pipeline", "an-app", "ap-1", "sb-1", 600)
PER_STEP = replace(PIPELINE, mode="per_step")
KILLED = SandboxState("ended", read_exit(137))
UNKNOWN = SandboxState("unknown", problem="Modal can't be reached.")


class Bench:
    """A run's record, and the state of its sandboxes."""

    def __init__(
        self, modal: SandboxState, metadata: RunMetadata | None = PIPELINE, status: str = "running"
    ) -> None:
        self.effects = Effects()
        self.zenml = FakeZenML(self.effects, status)
        self.zenml.run = replace(self.zenml.run, metadata=metadata)
        self.modal = modal

    @property
    def status(self) -> RunStatus:
        return derive_status(self.zenml.run, (), self.modal)

    def reconcile(self, *, force: bool = False) -> Reconciled:
        return reconcile(self.status, force=force, zenml=self.zenml, modal=FakeModal(self.effects))


def test_a_lost_run_is_recorded_as_failed() -> None:
    bench = Bench(KILLED)
    done = bench.reconcile()
    assert done.changed
    assert done.status.run.status == "failed"
    assert done.text == (
        "The run's sandbox ended with exit code 137: the run is now recorded as 'failed'."
    )
    assert bench.zenml.reasons == [
        "The run sandbox ended with exit code 137; recorded by 'modalrun reconcile'."
    ]


def test_a_lost_connection_keeps_no_end_from_being_recorded() -> None:
    bench = Bench(KILLED)
    bench.effects.errors["connect modal"] = ConnectionLostError("Modal can't be reached.")
    assert bench.reconcile().changed
    assert bench.effects[:3] == ["publish metadata", "connect modal", "finalize run"]


def test_a_note_says_that_resume_could_have_continued_the_run() -> None:
    bench = Bench(KILLED, PER_STEP)
    run_id = bench.zenml.run.id
    hint = f" 'modalrun resume {run_id}' could have continued it."
    assert bench.reconcile().text.endswith(f"recorded as 'failed'.{hint}")


def test_a_lost_run_that_was_stopping_is_recorded_as_stopped() -> None:
    assert Bench(KILLED, status="stopping").reconcile().status.run.status == "stopped"


@pytest.mark.parametrize("status", ["completed", "failed", "stopped"])
def test_a_finished_run_is_left_as_it_is(status: str) -> None:
    bench = Bench(KILLED, status=status)
    done = bench.reconcile(force=True)
    assert not done.changed
    assert done.text == f"The run is recorded as '{status}' already."
    assert not bench.effects


def test_a_run_that_is_alive_is_left_as_it_is() -> None:
    bench = Bench(SandboxState("running"))
    done = bench.reconcile(force=True)
    assert (done.changed, bench.effects) == (False, [])
    assert "its sandbox runs" in done.text


def test_a_paused_run_is_left_as_it_is() -> None:
    bench = Bench(SandboxState("ended", read_exit(0)), status="paused")
    done = bench.reconcile(force=True)
    assert (done.changed, bench.effects) == (False, [])
    assert "paused" in done.text


def test_a_run_without_a_driver_whose_steps_run_is_refused() -> None:
    state = SandboxState("ended", read_exit(137), step_sandboxes=frozenset({"sb-2"}))
    bench = Bench(state, PER_STEP)
    with pytest.raises(UsageError) as caught:
        bench.reconcile(force=True)
    assert caught.value.message.endswith("Nothing was changed.")
    assert "modalrun resume" in str(caught.value.hint)
    assert not bench.effects


def test_a_stop_or_a_failure_before_hides_no_reason() -> None:
    state = SandboxState("ended", read_exit(137), step_sandboxes=frozenset({"sb-2"}))
    bench = Bench(state, replace(PER_STEP, stop_requested=True))
    with pytest.raises(UsageError, match="1 step sandbox still runs") as caught:
        bench.reconcile()
    run_id = bench.zenml.run.id
    assert caught.value.hint == f"Use 'modalrun resume {run_id}' or 'modalrun stop {run_id}'."
    failing = Bench(UNKNOWN)
    failing.zenml.run = replace(failing.zenml.run, failing=True)
    with pytest.raises(ConnectionLostError, match="could not be checked: Modal can't be reached"):
        failing.reconcile()


@pytest.mark.parametrize(
    ("modal", "metadata", "error", "end"),
    [
        (UNKNOWN, PIPELINE, ConnectionLostError, "could not be checked"),
        (replace(UNKNOWN, not_found=True), PIPELINE, NotFoundError, "could not be found"),
        (SandboxState("not asked"), None, UsageError, "could not be found"),
    ],
)
def test_an_unknown_state_is_recorded_only_by_force(
    modal: SandboxState, metadata: RunMetadata | None, error: type[Exception], end: str
) -> None:
    bench = Bench(modal, metadata)
    with pytest.raises(error, match="Nothing was changed"):
        bench.reconcile()
    assert not bench.effects
    done = bench.reconcile(force=True)
    assert done.changed
    assert done.text.startswith(f"The run's sandbox {end}:")
    assert bench.zenml.reasons == [f"The run sandbox {end}; recorded by 'modalrun reconcile'."]


def test_the_end_of_a_child_pipeline_is_recorded_with_its_parents() -> None:
    bench = Bench(SandboxState("not asked"), None)
    bench.zenml.run = replace(bench.zenml.run, parent="a-parent")
    with pytest.raises(UsageError, match="Nothing was changed") as caught:
        bench.reconcile()
    assert "'modalrun reconcile a-parent'" in str(caught.value.hint)
