"""One stream of lines from all sandboxes of a run."""

from __future__ import annotations

from modalrun.errors import ConnectionLostError
from modalrun.observe.log_stream import LogStream
from modalrun.run import events
from modalrun.run.events import StepEvent
from modalrun.run.log_lines import LogLine
from tests.unit.fakes import FakeStreams


def lines_of(stream: LogStream) -> list[tuple[str | None, str]]:
    return [
        (item.step, item.text) for batch in stream for item in batch if isinstance(item, LogLine)
    ]


def test_a_step_sandbox_joins_when_an_event_names_it() -> None:
    streams = FakeStreams()
    streams.feed("sb-run", events.line(StepEvent("train", "running", 10.0, sandbox="sb-1")))
    streams.feed("sb-1", "epoch 1\nepoch 2")
    streams.end("sb-1")
    streams.end("sb-run")
    assert lines_of(LogStream(streams, "sb-run")) == [("train", "epoch 1"), ("train", "epoch 2")]
    assert streams.added == ["sb-run", "sb-1"]


def test_steps_that_had_ended_before_are_left_out() -> None:
    streams = FakeStreams()
    streams.feed("sb-run", events.line(StepEvent("load", "completed", 10.0, sandbox="sb-1")))
    streams.end("sb-run")
    assert lines_of(LogStream(streams, "sb-run", ended={"load"})) == []
    assert streams.added == ["sb-run"]


def test_a_gap_and_a_lost_stream_are_noted() -> None:
    streams = FakeStreams()
    streams.feed("sb-run", "", missing=5)
    streams.feed("sb-run", "", lost=2)
    streams.end("sb-run", ConnectionLostError("Modal can't be reached."))
    stream = LogStream(streams, "sb-run")
    gap, lost, *rest = [text for _, text in lines_of(stream)]
    assert "5 bytes of stdout are no longer" in gap and "2 bytes of stdout are lost" in lost
    assert rest == [
        f"[modalrun: the rest of {source} can't be read: Modal can't be reached.]"
        for source in ("stdout", "stderr")
    ]
    assert len(stream.errors) == 2


def test_the_next_driver_is_read_after_the_last_one() -> None:
    streams = FakeStreams()

    def successor(ended: str) -> str | None:
        if ended != "sb-run":
            return None
        streams.feed("sb-next", "again\n")
        streams.end("sb-next")
        return "sb-next"

    streams.feed("sb-run", "first\n")
    streams.end("sb-run")
    stream = LogStream(streams, "sb-run", successor=successor)
    assert lines_of(stream) == [(None, "first"), (None, "again")]
