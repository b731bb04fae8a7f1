"""Cancel a submission when somebody stops its run."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from modalrun.errors import CapacityError, ConnectionLostError, RunStoppedError
from modalrun.submit.cancellation import cancelled_when_stopped
from modalrun.util import interrupts
from tests.unit.fake_zenml import FakeZenML
from tests.unit.fakes import RUN_ID, Effects

ANNOUNCEMENT = {"modalrun_target": "modal"}


@pytest.fixture
def zenml() -> FakeZenML:
    return FakeZenML(Effects())


def test_a_run_is_announced_first(zenml: FakeZenML) -> None:
    published = zenml.publish_metadata

    def publish(run_id: str, metadata: Mapping[str, Any]) -> None:
        time.sleep(0.05)
        published(run_id, metadata)

    zenml.publish_metadata = publish  # type: ignore[method-assign]
    with cancelled_when_stopped(RUN_ID, ANNOUNCEMENT, zenml):
        assert zenml.metadata == ANNOUNCEMENT


def test_a_long_submission_is_interrupted(zenml: FakeZenML) -> None:
    zenml.stopping = True
    with (
        interrupts.installed(),
        pytest.raises(RunStoppedError, match=RUN_ID),
        cancelled_when_stopped(RUN_ID, ANNOUNCEMENT, zenml, poll_every=0),
    ):
        threading.Event().wait(10)
    assert zenml.metadata == ANNOUNCEMENT


def test_an_interrupt_by_the_user_stays_one(zenml: FakeZenML) -> None:
    with pytest.raises(KeyboardInterrupt), cancelled_when_stopped(RUN_ID, ANNOUNCEMENT, zenml):
        raise KeyboardInterrupt


def test_an_error_of_a_run_that_nobody_stopped_stays_one(zenml: FakeZenML) -> None:
    with (
        pytest.raises(CapacityError, match="Modal is full"),
        cancelled_when_stopped(RUN_ID, ANNOUNCEMENT, zenml),
    ):
        raise CapacityError("Modal is full.")


def test_an_error_that_stop_caused(zenml: FakeZenML) -> None:
    zenml.stopping = True
    with (
        pytest.raises(RunStoppedError) as caught,
        cancelled_when_stopped(RUN_ID, ANNOUNCEMENT, zenml),
    ):
        raise CapacityError("The sandbox was terminated.")
    assert isinstance(caught.value.__cause__, CapacityError)


def test_an_error_while_zenml_is_away_stays_one(zenml: FakeZenML) -> None:
    def refuse(run_id: str) -> bool:
        raise ConnectionLostError("ZenML does not answer.")

    zenml.stop_requested = refuse  # type: ignore[method-assign]
    with (
        pytest.raises(CapacityError, match="Modal is full"),
        cancelled_when_stopped(RUN_ID, ANNOUNCEMENT, zenml),
    ):
        raise CapacityError("Modal is full.")
