"""Where the lines of a run come from if Modal can't give them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from modalrun.errors import AuthenticationError, ConnectionLostError, ModalrunError, NotFoundError
from modalrun.modal_api.gateway import MODAL
from modalrun.observe import logs, stored_logs
from modalrun.observe.log_source import LogSource
from modalrun.observe.logs import LogRequest, read
from modalrun.run import events
from modalrun.run.events import StepEvent
from modalrun.run.log_lines import Item, LineFilter, LogLine
from modalrun.run.records import StepRecord
from tests.unit.fake_zenml import FakeZenML
from tests.unit.fakes import RUN_ID, Effects, FakeConnection, FakeStreams

SOURCE = LogSource(RUN_ID, "sb-run", FakeConnection(), running=True)
ELSEWHERE = NotFoundError("Modal: there is no sandbox sb-run")
LINE = LogLine("train", "stdout", "epoch 1", None, "")


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[list[Item]]:
    """The batches that ZenML has stored; Modal's history can't be read."""
    batches: list[list[Item]] = [[LINE]]

    class Stored:
        taken = 0

        def __init__(self, run_id: str) -> None: ...

        def take(self) -> list[Item]:
            batch = batches.pop(0) if batches else []
            self.taken += len(batch)
            return batch

    def history(*_: object) -> SimpleNamespace:
        def read(*_: object, **__: object) -> Iterator[list[object]]:
            return iter(())

        return SimpleNamespace(read=read, sizes={}, errors={"sb-run": ELSEWHERE})

    monkeypatch.setattr(stored_logs, "_StoredLines", Stored)
    monkeypatch.setattr(MODAL, "log_history", history)
    return batches


def test_of_a_run_that_runs_elsewhere_there_is_what_zenml_has(stored: list[list[Item]]) -> None:
    said: list[str] = []
    shown = [
        line for batch in read(SOURCE, LogRequest(LineFilter()), said.append) for line in batch
    ]
    assert shown == [LINE]
    reason = "Modal knows no sandbox sb-run here"
    assert said == [f"{reason}; these are the logs that ZenML has stored"]

    assert not stored
    with pytest.raises(NotFoundError, match=f"{reason}, and ZenML stores none"):
        list(read(SOURCE, LogRequest(LineFilter()), said.append))


def test_a_silent_step_of_a_child_pipeline_is_known_by_its_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zenml = FakeZenML(Effects())
    zenml.steps = (StepRecord("load", "completed"),)
    monkeypatch.setattr(logs, "ZENML", zenml)
    streams = FakeStreams()
    streams.feed("sb-run", events.line(StepEvent("child/load", "completed", 10.0)))
    streams.end("sb-run")
    monkeypatch.setattr(MODAL, "log_streams", lambda *_: streams)
    monkeypatch.setattr(zenml, "step_names", lambda _: None)
    monkeypatch.setattr(logs, "_next_run_sandbox", lambda *_: None)
    request = LogRequest(LineFilter(steps=("child/load",)), follow=True)
    with pytest.raises(NotFoundError) as caught:
        list(read(SOURCE, request, lambda _: None))
    assert caught.value.message == "Step 'child/load' (completed) has printed nothing."


@pytest.mark.parametrize(
    ("error", "code", "hint"),
    [
        (ELSEWHERE, 4, f"'modalrun status {RUN_ID}' shows it."),
        (AuthenticationError("No.", hint="Log in."), 3, "Log in."),
        (ConnectionLostError("Gone."), 8, f"Try 'modalrun logs {RUN_ID}' again."),
    ],
)
def test_the_exit_code_says_why_a_run_can_not_be_followed(
    monkeypatch: pytest.MonkeyPatch, error: ModalrunError, code: int, hint: str
) -> None:
    streams = FakeStreams()
    streams.end("sb-run", error)
    monkeypatch.setattr(MODAL, "log_streams", lambda *_: streams)
    with pytest.raises(ModalrunError, match="Not all of the output can be read") as caught:
        list(read(SOURCE, LogRequest(LineFilter(), follow=True), lambda _: None))
    assert (caught.value.exit_code, caught.value.hint) == (code, f"The run may continue. {hint}")


def test_the_end_of_a_followed_sandbox_is_not_told_as_that_of_its_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zenml = FakeZenML(Effects())
    monkeypatch.setattr(logs, "ZENML", zenml)
    streams = FakeStreams()
    streams.end("sb-run")
    monkeypatch.setattr(MODAL, "log_streams", lambda *_: streams)
    monkeypatch.setattr(logs, "_next_run_sandbox", lambda *_: None)

    def said(status: str) -> str:
        zenml.run = replace(zenml.run, status=status)
        found: list[str] = []
        list(read(SOURCE, LogRequest(LineFilter(), follow=True), found.append))
        return " ".join(found)

    assert f"ZenML says 'running': 'modalrun status {RUN_ID}' shows more." in said("running")
    assert [said(status) for status in ("completed", "failed", "paused")] == [""] * 3
