"""Which of ZenML's lines are kept from a step's output."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from modalrun.zenml_api import noise

RUNNER = "zenml.orchestrators.step_runner"
BEGUN = "Initiating heartbeat for step: %s (%s)"


@pytest.fixture(autouse=True)
def _unfiltered() -> Iterator[None]:
    before = {name: list(logging.getLogger(name).filters) for name in noise.NOISE}
    yield
    for name, filters in before.items():
        logging.getLogger(name).filters[:] = filters


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.INFO):
        logging.getLogger(RUNNER).info(BEGUN, "train", "id")
        logging.getLogger(RUNNER).warning(BEGUN, "train", "late")
        logging.getLogger(RUNNER).info("Step %s has started.", "train")
        # A user's own logger may say what it likes.
        logging.getLogger("mine").info(BEGUN, "train", "mine")
    return [record.getMessage() for record in caplog.records]


def test_a_heartbeat_is_nobodys_business(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZENML_LOGGING_VERBOSITY", raising=False)
    monkeypatch.delenv("ZENML_DEBUG", raising=False)
    noise.hide()
    begin = "Initiating heartbeat for step: train"
    assert logged(caplog) == [f"{begin} (late)", "Step train has started.", f"{begin} (mine)"]


@pytest.mark.parametrize(
    "variable", [("ZENML_LOGGING_VERBOSITY", "debug"), ("ZENML_DEBUG", "true")], ids=lambda v: v[0]
)
def test_who_debugs_sees_all_of_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]
) -> None:
    monkeypatch.setenv(*variable)
    noise.hide()
    assert len(logged(caplog)) == 4
