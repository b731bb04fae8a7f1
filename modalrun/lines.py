"""The output of a sandbox -> lines, each with its step, and events. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from modalrun.driver import events
from modalrun.driver.events import MARK, LinesOf, StepEvent
from modalrun.output.text import LineAssembler

Source = Literal["stdout", "stderr"]


@dataclass(frozen=True)
class Line:
    """A line of a run's output, as it was printed and without its line feed.

    Attributes:
        step: Who printed it; None for the driver, the supervisor, or what no step is known for.
        source: Where it was printed to.
        text: The line; a part of it where it is very long.
    """

    step: str | None
    source: Source
    text: str


class Separator:
    """Makes lines and events out of the pieces of one stream."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._assembler = LineAssembler()
        self._step: str | None = None

    def feed(self, text: str) -> Iterator[Line | StepEvent]:
        """What `text` completes, in order."""
        for line in self._assembler.feed(text):
            yield from self._items(line)

    def flush(self) -> Iterator[Line | StepEvent]:
        """What is left at the end of the stream, where no line feed ended it."""
        for line in self._assembler.flush():
            yield from self._items(line)

    def _items(self, line: str) -> Iterator[Line | StepEvent]:
        event, before = _event_in(line) if MARK in line else (None, line)
        if before or event is None:
            yield Line(self._step, self._source, before)
        if isinstance(event, LinesOf):
            self._step = event.step
        elif event is not None:
            yield event


def _event_in(line: str) -> tuple[events.Event | None, str]:
    """The event that a line ends with and what stands before it: a progress bar has no line end."""
    at = line.find(MARK)
    while at >= 0:
        event = events.read(line[at:])
        if event is not None:
            return event, line[:at]
        at = line.find(MARK, at + 1)
    return None, line
