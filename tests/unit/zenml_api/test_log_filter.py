"""Hide some of ZenML's lines from a step's output."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from zenml.config import DockerSettings

from modalrun.zenml_api import log_filter

RUNNER = "zenml.orchestrators.step_runner"
BEGUN = "Initiating heartbeat for step: %s (%s)"


class Kept(logging.Handler):
    """Store the logs, as ZenML's handler does."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    handler = Kept()
    root = logging.getLogger()
    printing = [one for one in root.handlers if isinstance(one, logging.StreamHandler)]
    monkeypatch.setattr(root, "handlers", [*printing, handler])
    return handler.lines


@pytest.fixture(autouse=True)
def _unfiltered() -> Iterator[None]:
    before = {name: list(logging.getLogger(name).filters) for name in log_filter.NOISE}
    yield
    for name, filters in before.items():
        logging.getLogger(name).filters[:] = filters


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.INFO):
        logging.getLogger(RUNNER).info(BEGUN, "train", "id")
        logging.getLogger(RUNNER).warning(BEGUN, "train", "late")
        logging.getLogger(RUNNER).info("Step %s has started.", "train")
        # A user's own logger is not filtered.
        logging.getLogger("mine").info(BEGUN, "train", "mine")
    return [record.getMessage() for record in caplog.records]


def test_a_heartbeat_is_hidden(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kept: list[str]
) -> None:
    monkeypatch.delenv("ZENML_LOGGING_VERBOSITY", raising=False)
    monkeypatch.delenv("ZENML_DEBUG", raising=False)
    log_filter.hide()
    begin = "Initiating heartbeat for step: train"
    shown = [f"{begin} (late)", "Step train has started.", f"{begin} (mine)"]
    assert logged(caplog) == shown
    assert kept == [f"{begin} (id)", *shown]


def test_what_zenml_says_of_its_own_docker_settings_is_hidden(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kept: list[str]
) -> None:
    monkeypatch.delenv("ZENML_LOGGING_VERBOSITY", raising=False)
    monkeypatch.delenv("ZENML_DEBUG", raising=False)
    log_filter.hide()
    defaults = DockerSettings().model_dump()
    # ZenML logs each once a process.
    monkeypatch.setattr(DockerSettings, "__previous_deprecation_warnings", set(), raising=False)
    with pytest.warns(DeprecationWarning, match="is deprecated"):
        DockerSettings(**defaults)
    assert caplog.messages == []
    assert len(kept) == 4


def test_a_line_that_is_not_stored_is_shown(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kept: list[str]
) -> None:
    monkeypatch.delenv("ZENML_LOGGING_VERBOSITY", raising=False)
    monkeypatch.delenv("ZENML_DEBUG", raising=False)
    root = logging.getLogger()
    root.handlers[:] = [one for one in root.handlers if not isinstance(one, Kept)]
    log_filter.hide()
    assert len(logged(caplog)) == 4


@pytest.mark.parametrize(
    "variable", [("ZENML_LOGGING_VERBOSITY", "debug"), ("ZENML_DEBUG", "true")], ids=lambda v: v[0]
)
def test_debugging_shows_all_lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]
) -> None:
    monkeypatch.setenv(*variable)
    log_filter.hide()
    assert len(logged(caplog)) == 4
