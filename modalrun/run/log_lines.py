"""Output of a run's sandboxes -> lines, each with the step that printed it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from modalrun.run import events
from modalrun.run.events import LinesOf, StepEvent
from modalrun.util.line_assembler import LineAssembler

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

    Attributes:
        run_sandbox: Modal's id of the run sandbox; of several, the last.
        run_sandboxes: All of them.
        per_step: Whether each step has a sandbox of its own, and what no step prints is the
            driver's talk; None until an event says it. Not so where a dynamic pipeline's function
            prints.

    The run sandbox's streams also carry events (`modalrun.run.events`): those come out as what
    they are, in their place. That a step gets another sandbox is also a line of source "system".
    """

    def __init__(self, run_sandbox: str, earlier: Sequence[str] = ()) -> None:
        """
        Args:
            run_sandbox: Modal's id of the run sandbox. Of a step sandbox only the
                word is believed that its step begins.
            earlier: Those that a run had before it was resumed.
        """
        self.run_sandbox = run_sandbox
        self.run_sandboxes = {*earlier, run_sandbox}
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._steps: dict[str, tuple[str, int]] = {}
        self._attempts: dict[str, int] = {}
        self._begun_in: set[str] = set()
        self.per_step: bool | None = None
        self._shared = False

    @property
    def step_sandboxes(self) -> list[str]:
        """The ids of the step sandboxes that events have named so far."""
        return list(self._steps)

    def name(self, sandbox: str, step: str, attempt: int) -> None:
        """From now on, what a sandbox prints belongs to this try of a step."""
        self.per_step = not self._shared
        self._steps[sandbox] = (step, attempt)

    def succeed(self, run_sandbox: str) -> None:
        """Another driver has taken over, in a run sandbox of its own."""
        self.run_sandboxes.add(run_sandbox)
        self.run_sandbox = run_sandbox

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

    def end_all(self) -> list[Item]:
        """What is left of all streams."""
        return [
            item for sandbox, source in list(self._streams) for item in self.end(sandbox, source)
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
        if events.MARK in text and (begun := self._begun(sandbox, text)):
            return [begun]
        if sandbox not in self.run_sandboxes or events.MARK not in text:
            return [self._line(stream, sandbox, source, text)]
        before, event = _event_in(text)
        if event is None:
            return [self._line(stream, sandbox, source, text)]
        items: list[Item] = [self._line(stream, sandbox, source, before)] if before else []
        if isinstance(event, LinesOf):
            # The run sandbox runs steps itself.
            stream.step, self.per_step, self._shared = event.step, False, True
        elif event.sandbox is not None:
            self.name(event.sandbox, event.step, event.attempt)
        elif event.state == "starting":
            self.per_step = not self._shared
        elif event.state == "running":
            # The run sandbox runs this step itself.
            self.per_step = False
            self._attempts[event.step] = event.attempt
        # What the runner retries in its own process it says itself.
        if isinstance(event, StepEvent) and event.state == "retrying" and self._is_apart(event):
            items.append(self._told(stream, event))
        return [*items, event]

    def _is_apart(self, event: StepEvent) -> bool:
        return bool(self.per_step) or (event.step, event.attempt) in self._steps.values()

    def _begun(self, sandbox: str, text: str) -> StepEvent | None:
        """A step's own word that it begins, which its process says before the user's code runs."""
        step, attempt = self._steps.get(sandbox, (None, 1))
        event = events.read(text) if step is not None and sandbox not in self._begun_in else None
        if not isinstance(event, StepEvent) or (event.step, event.state) != (step, "running"):
            return None
        self._begun_in.add(sandbox)
        # No more of it is believed than whose it is: the user's code can print such a line too.
        return StepEvent(event.step, "running", event.at, attempt, sandbox=sandbox, began=event.at)

    def _told(self, stream: _Stream, event: StepEvent) -> LogLine:
        """The driver's word on a step, as a line of that step."""
        text = f"modalrun: {event.reason or 'It is started again.'}"
        sandbox = next(
            (s for s, of in self._steps.items() if of == (event.step, event.attempt)),
            self.run_sandbox,
        )
        return LogLine(event.step, SYSTEM, text, stream.time, sandbox, event.attempt)

    def _line(self, stream: _Stream, sandbox: str, source: str, text: str) -> LogLine:
        step, attempt = self._steps.get(sandbox, (stream.step, 1))
        if sandbox in self.run_sandboxes and step is not None:
            attempt = self._attempts.get(step, 1)
        return LogLine(step, source, text, stream.time, sandbox, attempt)


def _event_in(text: str) -> tuple[str, events.Event | None]:
    """The event that a line ends with, and what was printed before it without a line feed."""
    at = text.find(events.MARK)
    while at >= 0:
        event = events.read(text[at:])
        if event is not None:
            return text[:at], event
        at = text.find(events.MARK, at + 1)
    return text, None


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
        if self.driver:
            # That a step is started again is the driver's word, too.
            return line.source == SYSTEM
        return any(fnmatchcase(line.step, name) for name in self.steps or ("*",))

    def _takes_time(self, moment: float | None) -> bool:
        if moment is None:
            return True
        after = self.since is None or moment >= self.since
        return after and (self.until is None or moment < self.until)


class Choice:
    """Picks the wanted lines; holds back what no step printed until the mode is known.

    Attributes:
        spoken: The steps that have printed something so far, wanted or not.
        told: Why steps are not run, as events say; sentences.
    """

    def __init__(self, wanted: Wanted, lines: RunLines) -> None:
        self.spoken: set[str] = set()
        self.told: dict[str, str] = {}
        self._wanted = wanted
        self._lines = lines
        self._held: list[LogLine] = []

    def of(self, items: Sequence[Item]) -> list[LogLine]:
        """Those among these items, and those held back, that are to be shown now."""
        for item in items:
            if isinstance(item, LogLine):
                self._held.append(item)
                if item.step is not None:
                    self.spoken.add(item.step)
            elif isinstance(item, StepEvent) and item.reason and item.state == "not run":
                self.told[item.step] = item.reason
        # A run whose start goes wrong says much before its first event, if there is one.
        if self._lines.per_step is None and len(self._held) < _MOST_HELD:
            return []
        return self.rest()

    def rest(self) -> list[LogLine]:
        """What is left to be shown when nothing more comes."""
        held, self._held = self._held, []
        per_step = bool(self._lines.per_step)
        return [line for line in held if self._wanted.takes(line, per_step=per_step)]


_MOST_HELD = 1_000
