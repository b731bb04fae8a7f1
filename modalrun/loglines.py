"""Output of a run's sandboxes -> lines, each with the step that printed it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from modalrun.driver import events
from modalrun.driver.events import LinesOf, StepEvent
from modalrun.output.text import LineAssembler

SYSTEM = "system"


@dataclass(frozen=True)
class LogLine:
    """A line that a run printed.

    Attributes:
        step: Whose it is; None for the run's own: the runner's or the driver's.
        source: "stdout", "stderr", or "system" for Modal's own word and ours.
        text: As it was printed, without the line feed: nothing in it has been made harmless.
        time: Seconds since the epoch; None where Modal doesn't say (live streams).
        sandbox: Modal's id of the sandbox.
        attempt: Which try of its step, from 1.
    """

    step: str | None
    source: str
    text: str
    time: float | None
    sandbox: str
    attempt: int = 1


Item = LogLine | StepEvent | LinesOf


class _Stream:
    """One stream of one sandbox."""

    def __init__(self) -> None:
        self.assembler = LineAssembler()
        self.step: str | None = None
        self.time: float | None = None


class RunLines:
    """Puts the streams of a run's sandboxes together; keeps the order within each.

    The run sandbox's streams also carry events (`modalrun.driver.events`): those come out as what
    they are, in their place, and never as lines.
    """

    def __init__(self, run_sandbox: str) -> None:
        """
        Args:
            run_sandbox: Modal's id of the run sandbox, the only one whose events are believed.
        """
        self._run_sandbox = run_sandbox
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._steps: dict[str, tuple[str, int]] = {}
        self._attempts: dict[str, int] = {}
        self.per_step = False

    def feed(self, sandbox: str, source: str, text: str, time: float | None = None) -> list[Item]:
        """The lines and events that a piece of a stream completes."""
        stream = self._streams.setdefault((sandbox, source), _Stream())
        stream.time = time
        items: list[Item] = []
        for line in stream.assembler.feed(text):
            items += self._items(stream, sandbox, source, line)
        return items

    def end(self, sandbox: str, source: str) -> list[Item]:
        """What is left of a stream whose last line has no line feed."""
        stream = self._streams.pop((sandbox, source), _Stream())
        return [
            item
            for line in stream.assembler.flush()
            for item in self._items(stream, sandbox, source, line)
        ]

    def note(self, sandbox: str, source: str, text: str) -> list[Item]:
        """A line of our own about a stream, after what that stream has left unfinished."""
        stream = self._streams.setdefault((sandbox, source), _Stream())
        items = [
            item
            for line in stream.assembler.flush()
            for item in self._items(stream, sandbox, source, line)
        ]
        return [*items, self._line(stream, sandbox, SYSTEM, text)]

    def _items(self, stream: _Stream, sandbox: str, source: str, text: str) -> list[Item]:
        if sandbox != self._run_sandbox or events.MARK not in text:
            return [self._line(stream, sandbox, source, text)]
        # What was printed last may have had no line feed: the event then stands behind it.
        before, mark, rest = text.partition(events.MARK)
        event = events.read(mark + rest)
        if event is None:
            return [self._line(stream, sandbox, source, text)]
        items: list[Item] = [self._line(stream, sandbox, source, before)] if before else []
        if isinstance(event, LinesOf):
            stream.step = event.step
        elif event.sandbox is None:
            # The run sandbox runs this step itself.
            self._attempts[event.step] = event.attempt
        else:
            self.per_step = True
            self._steps[event.sandbox] = (event.step, event.attempt)
        return [*items, event]

    def _line(self, stream: _Stream, sandbox: str, source: str, text: str) -> LogLine:
        step, attempt = self._steps.get(sandbox, (stream.step, 1))
        if sandbox == self._run_sandbox and step is not None:
            attempt = self._attempts.get(step, 1)
        return LogLine(step, source, text, stream.time, sandbox, attempt)


@dataclass(frozen=True)
class Wanted:
    """Which lines are to be shown.

    Attributes:
        steps: Names of steps, with `*`, `?` and `[...]`; empty for all.
        sources: Of "stdout", "stderr" and "system"; empty for all.
        since: Seconds since the epoch; lines whose time is not known pass.
        until: The same.
        search: A text that the line holds.
        driver: The driver's own lines instead of the steps'.
    """

    steps: Sequence[str] = ()
    sources: Sequence[str] = ()
    since: float | None = None
    until: float | None = None
    search: str = ""
    driver: bool = False

    def takes(self, line: LogLine, *, per_step: bool) -> bool:
        """Whether a line is to be shown.

        In `per_step` mode what the driver says is for `driver` only; in `pipeline` mode what no
        step printed may be why none ran, and is shown.
        """
        return (
            self._takes_step(line, per_step=per_step)
            and (not self.sources or line.source in self.sources)
            and self._takes_time(line.time)
            and self.search in line.text
        )

    def _takes_step(self, line: LogLine, *, per_step: bool) -> bool:
        if line.step is None:
            return self.driver or (not self.steps and (not per_step or line.source == SYSTEM))
        names = self.steps or ("*",)
        return not self.driver and any(fnmatchcase(line.step, name) for name in names)

    def _takes_time(self, moment: float | None) -> bool:
        if moment is None:
            return True
        after = self.since is None or moment >= self.since
        return after and (self.until is None or moment < self.until)
