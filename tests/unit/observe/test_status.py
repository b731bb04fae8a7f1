"""Select a run and read its status."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modalrun.errors import NotFoundError
from modalrun.observe.status import connect, read_status, refresh, resolve
from modalrun.run.metadata import Announced, RunMetadata
from modalrun.run.outcome import LOST
from modalrun.run.records import StepRecord
from modalrun.run.sandbox_exit import ModalStatus, read_exit
from modalrun.run.status import SandboxState
from tests.unit.fake_zenml import FakeZenML
from tests.unit.fakes import RUN_ID, Effects, FakeModal

METADATA = RunMetadata("modal", "pipeline", "app", "ap-1", "sb-run", 60)


@pytest.fixture
def effects() -> Effects:
    return Effects()


@pytest.fixture
def zenml(effects: Effects) -> FakeZenML:
    zenml = FakeZenML(effects)
    zenml.run = replace(zenml.run, metadata=METADATA)
    zenml.steps = (StepRecord("train", "running"),)
    return zenml


@pytest.fixture
def modal(effects: Effects) -> FakeModal:
    return FakeModal(effects)


def test_latest_is_the_newest_run(zenml: FakeZenML) -> None:
    assert resolve("latest", zenml=zenml) is zenml.run


def test_there_is_no_latest_run(zenml: FakeZenML) -> None:
    zenml.newest_runs = lambda **_: []  # type: ignore[method-assign]
    with pytest.raises(NotFoundError, match="no run that modalrun has started"):
        resolve("latest", zenml=zenml)


def test_the_beginning_of_an_id(zenml: FakeZenML) -> None:
    assert resolve("1111", zenml=zenml) is zenml.run


def test_an_argument_that_matches_nothing_names_recent_runs(zenml: FakeZenML) -> None:
    with pytest.raises(NotFoundError, match="newest are") as raised:
        resolve("zzz", zenml=zenml)
    assert RUN_ID in raised.value.message


def test_a_finished_run_needs_no_modal(
    zenml: FakeZenML, modal: FakeModal, effects: Effects
) -> None:
    zenml.run = replace(zenml.run, status="failed")
    status = read_status(RUN_ID, zenml=zenml, modal=modal)
    assert (status.over, status.exit_code) == (True, None)
    assert effects == ["read run and steps"]


def test_the_exit_code_of_a_failed_run_takes_modal(zenml: FakeZenML, modal: FakeModal) -> None:
    zenml.run = replace(zenml.run, status="failed")
    modal.state = SandboxState("ended", read_exit(124))
    assert read_status(RUN_ID, with_exit_code=True, zenml=zenml, modal=modal).exit_code == 6


ANNOUNCED = Announced("modal", "pipeline", "app")


@pytest.mark.parametrize(
    ("announced", "steps", "found"),
    [
        (ANNOUNCED, "completed", METADATA),
        # ZenML's cache had all of it.
        (ANNOUNCED, "cached", None),
        (replace(ANNOUNCED, withdrawn=True), "completed", None),
        (replace(ANNOUNCED, exit_code=3), "completed", None),
    ],
)
def test_a_run_that_has_ended_has_the_sandbox_that_its_submission_could_not_record(
    zenml: FakeZenML, modal: FakeModal, announced: Announced, steps: str, found: RunMetadata | None
) -> None:
    zenml.run = replace(zenml.run, status="completed", metadata=None, announced=announced)
    zenml.steps = tuple(replace(step, status=steps) for step in zenml.steps)
    modal.found = METADATA
    assert read_status(RUN_ID, zenml=zenml, modal=modal).run.metadata == found


def test_a_sandbox_that_could_not_start_is_no_lost_run_while_it_is_asked_for_again(
    zenml: FakeZenML, modal: FakeModal
) -> None:
    zenml.run = replace(zenml.run, status="initializing", metadata=None, announced=ANNOUNCED)
    modal.found = METADATA
    modal.state = SandboxState("ended", read_exit(1, ModalStatus.INIT_FAILURE))
    status = read_status(RUN_ID, zenml=zenml, modal=modal)
    assert (status.state, status.over, status.run.metadata) == ("initializing", False, None)
    modal.state = SandboxState("ended", read_exit(137))
    assert read_status(RUN_ID, zenml=zenml, modal=modal).state == LOST


def test_a_run_that_runs(zenml: FakeZenML, modal: FakeModal, effects: Effects) -> None:
    status = read_status(RUN_ID, zenml=zenml, modal=modal)
    assert (status.state, status.over, status.steps) == ("running", False, zenml.steps)
    assert effects == ["read run and steps", "ask Modal"]


def test_a_run_whose_sandbox_has_ended_is_read_again(
    zenml: FakeZenML, modal: FakeModal, effects: Effects
) -> None:
    modal.state = SandboxState("ended", read_exit(137))
    assert read_status(RUN_ID, zenml=zenml, modal=modal).state == LOST
    # It may have recorded its end between the two reads.
    assert effects == ["read run and steps", "ask Modal", "read run and steps"]


def test_refresh_asks_zenml_alone(zenml: FakeZenML, modal: FakeModal, effects: Effects) -> None:
    status = read_status(RUN_ID, zenml=zenml, modal=modal)
    effects.clear()
    zenml.run = replace(zenml.run, status="completed")
    refreshed = refresh(status, zenml=zenml)
    assert (refreshed.state, refreshed.modal) == ("completed", status.modal)
    assert effects == ["read run and steps"]


def test_the_connection_uses_the_token_of_the_orchestrator(
    zenml: FakeZenML, modal: FakeModal
) -> None:
    zenml.credentials = ("ak-1", "as-1")
    connect(RUN_ID, METADATA, zenml=zenml, modal=modal)
    assert modal.credentials == ("ak-1", "as-1")
