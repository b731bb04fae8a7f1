"""Turn the output of a run's sandboxes into lines, each with the step that printed it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from modalrun.run import events
from modalrun.run.event_proof import END, MARK
from modalrun.run.events import Idle, LinesOf, OrderEnd, Redraw, StepEvent, Used
from modalrun.run.values import LONGEST_TEXT
from modalrun.util import redraws
from modalrun.util.line_assembler import LineAssembler
from modalrun.util.text import one_line

SYSTEM = "system"

_MAX_HELD = 1_000
"""Lines that are held back at most until the mode of a run is known."""

_LONGEST_REDRAWN = 8_192
"""Characters of an unfinished line up to which all its states are kept."""

MAX_NAMED = 20_000
"""Steps and sandboxes that the events of a run name at most."""


@dataclass(frozen=True)
class LogLine:
    """A line that a run printed.

    Attributes:
        step: The step that printed it; None for the runner or the driver.
        source: "stdout", "stderr", or "system" for lines of Modal's and modalrun's own.
        text: The raw line without its line feed; nothing in it has been made harmless.
        time: Seconds since the epoch; None where Modal gives none (live streams).
        sandbox: Modal's id of the sandbox.
        attempt: Number of the step's attempt as ZenML counts them, from 1.
    """

    step: str | None
    source: str
    text: str
    time: float | None
    sandbox: str
    attempt: int = 1


Item = LogLine | StepEvent | LinesOf | Idle | Redraw


class _Stream:
    """One stream of one sandbox."""

    def __init__(self) -> None:
        self.step: str | None = None
        self.attempt = 1
        self.time: float | None = None
        self.shown = Redraw("", "")
        # The states of lines that events tell of, by step.
        self.told: dict[str, str] = {}
        # The last state of an unfinished line that is redrawn.
        self.redrawn = ""
        self._assembler = LineAssembler()

    def feed(self, text: str) -> list[str]:
        """Return the lines that a piece completes; of a long redrawn line the last states."""
        if not self.redrawn and "\r" not in text:
            return self._assembler.feed(text)
        whole, newline, rest = (self.redrawn + text).rpartition("\n")
        self.redrawn = ""
        if "\r" in rest:
            # Its states would add up to a line that comes in parts.
            rest = redraws.split(rest)[1] if len(rest) > _LONGEST_REDRAWN else rest
            if len(rest) <= redraws.LONGEST:
                self.redrawn, rest = rest, ""
        return self._assembler.feed(whole + newline + rest)

    def flush(self) -> list[str]:
        """Return the last line, if it has no line feed."""
        rest, self.redrawn = self.redrawn, ""
        return [*self._assembler.feed(rest), *self._assembler.flush()]


class RunLines:
    """Assemble the streams of a run's sandboxes to lines and events, in order within each stream.

    That a step gets another sandbox is an event, and also a line of source "system".

    Attributes:
        run_sandbox: Modal's id of the run sandbox; of several, the last.
        run_sandboxes: The ids of all run sandboxes.
        per_step: Whether each step has its own sandbox, so that lines of no step are the driver's;
            None until an event tells. False where a dynamic pipeline's function prints.
    """

    def __init__(
        self, run_sandbox: str, earlier: Sequence[str] = (), *, graph: Collection[str] | None = None
    ) -> None:
        """
        Args:
            run_sandbox: Modal's id of the run sandbox. Events count only in its output; in a step
                sandbox's output, only those that a step begins and which step prints.
            graph: The names of all steps; None if they are not known. An event about another step
                is an ordinary line.
        """
        self.run_sandbox = run_sandbox
        self.run_sandboxes = {*earlier, run_sandbox}
        self.per_step: bool | None = None
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._steps: dict[str, tuple[str, int]] = {}
        self._sandboxes: dict[tuple[str, int], str] = {}
        self._restarts: dict[tuple[str | None, int], int] = {}
        self._attempts: dict[str, int] = {}
        self._begun: set[tuple[str, str | None, int]] = set()
        self._shared = False
        self._graph = None if graph is None else frozenset(graph)
        self._named: set[str] = set()

    @property
    def step_sandboxes(self) -> list[str]:
        """The ids of the step sandboxes that events have named so far."""
        return list(self._steps)

    def assign(self, sandbox: str, step: str, attempt: int, restarts: int = 0) -> None:
        """Assign the output of a sandbox to an attempt of a step; see `StepEvent`."""
        self.per_step = not self._shared
        self._steps[sandbox] = (step, attempt)
        self._sandboxes.setdefault((step, attempt), sandbox)
        self._restarts[step, attempt] = restarts

    def add_run_sandbox(self, run_sandbox: str) -> None:
        """Add the run sandbox of a replacement driver."""
        self.run_sandboxes.add(run_sandbox)
        self.run_sandbox = run_sandbox

    def feed(self, sandbox: str, source: str, text: str, time: float | None = None) -> list[Item]:
        """Return the lines and events that a piece of a stream completes."""
        stream = self._streams.setdefault((sandbox, source), _Stream())
        stream.time = time
        lines = stream.feed(text)
        items = [item for line in lines for item in self._items(stream, sandbox, source, line)]
        return [*items, *self._redraws(stream, sandbox)]

    def _redraws(self, stream: _Stream, sandbox: str) -> list[Item]:
        """Return what has changed of the line that is redrawn now, or was before."""
        if not stream.redrawn and not stream.shown.text:
            return []
        before = stream.shown
        text = one_line(redraws.state(stream.redrawn), LONGEST_TEXT)
        stream.shown = now = Redraw(self._printing(stream, sandbox)[0] or "", text)
        changed: list[Item] = []
        if before.text and before.step != now.step:
            changed.append(Redraw(before.step, ""))
            before = Redraw(now.step, "")
        if now.step and now.text != before.text:
            changed.append(now)
        return changed

    def end(self, sandbox: str, source: str) -> list[Item]:
        """Return the rest of a stream whose last line has no line feed."""
        return self._flush(self._streams.pop((sandbox, source), _Stream()), sandbox, source)

    def end_all(self) -> list[Item]:
        """Return the rest of all streams."""
        return [
            item for sandbox, source in list(self._streams) for item in self.end(sandbox, source)
        ]

    def note(self, sandbox: str, source: str, text: str) -> list[Item]:
        """Return the rest of a stream, then a line of our own about it."""
        stream = self._streams.setdefault((sandbox, source), _Stream())
        rest = self._flush(stream, sandbox, source)
        return [*rest, self._line(stream, sandbox, SYSTEM, text)]

    def _flush(self, stream: _Stream, sandbox: str, source: str) -> list[Item]:
        items = [i for line in stream.flush() for i in self._items(stream, sandbox, source, line)]
        for step, text in stream.told.items():
            if text:
                # Its sandbox was killed.
                attempt = self._attempts.get(step, 1)
                items.append(LogLine(step, source, text, stream.time, sandbox, attempt))
        stream.told = {}
        return items

    def _items(self, stream: _Stream, sandbox: str, source: str, text: str) -> list[Item]:
        if text.endswith(END):
            text = text.removesuffix(END)
            return [self._line(stream, sandbox, source, text)] if text else []
        before, event = events.split(text) if MARK in text else (text, None)
        if event is None or not self._possible(event):
            return [self._line(stream, sandbox, source, text)]
        items: list[Item] = [self._line(stream, sandbox, source, before)] if before else []
        is_run = sandbox in self.run_sandboxes
        told = (self._of_run if is_run else self._of_step)(stream, sandbox, event)
        return [self._line(stream, sandbox, source, text)] if told is None else [*items, *told]

    def _of_run(self, stream: _Stream, sandbox: str, event: events.Event) -> list[Item] | None:
        """Return what an event in a run sandbox's output tells; None if it is an ordinary line."""
        if isinstance(event, OrderEnd | Used):
            return [] if isinstance(event, Used) else None
        if isinstance(event, Idle):
            return [event]
        if isinstance(event, LinesOf):
            # The run sandbox runs steps itself.
            stream.step, self.per_step, self._shared = event.step, False, True
            return [event]
        if isinstance(event, Redraw):
            if event.step != stream.step:
                return None
            stream.told[event.step] = event.text
            return [event]
        if event.sandbox is not None:
            self.assign(event.sandbox, event.step, event.attempt, event.restarts)
        elif event.state == "starting":
            self.per_step = not self._shared
        elif event.state == "running":
            self.per_step = False
            self._attempts[event.step] = event.attempt
        note = self._note_line(stream, event)
        return [note, event] if note else [event]

    def _possible(self, event: events.Event) -> bool:
        """Return whether the run can have the step of an event, and its sandbox."""
        if isinstance(event, OrderEnd | Used) or event.step is None:
            return True
        named = {event.step}
        if isinstance(event, StepEvent | Idle) and event.sandbox is not None:
            named.add(event.sandbox)
        named -= self._named
        if self._graph is not None and event.step not in self._graph:
            return False
        if len(self._named) + len(named) > MAX_NAMED:
            return False
        self._named |= named
        return True

    def _of_step(self, stream: _Stream, sandbox: str, event: events.Event) -> list[Item] | None:
        """Return what an event in a step sandbox's output tells; None if it is an ordinary line."""
        if sandbox not in self._steps:
            return None
        if isinstance(event, OrderEnd | Used):
            # It is for the driver.
            return []
        if isinstance(event, LinesOf):
            stream.step, stream.attempt = event.step, event.attempt
            return []
        step, attempt = self._printing(stream, sandbox)
        begun = (sandbox, step, attempt)
        if (
            not isinstance(event, StepEvent)
            or (event.step, event.state) != (step, "running")
            or begun in self._begun
        ):
            return None
        self._begun.add(begun)
        # Printed before the user's code runs, which can print such a line too: only the time is
        # taken from it.
        at, restarts = event.at, self._restarts.get((step, attempt), 0)
        return [
            StepEvent(
                event.step, "running", at, attempt, restarts=restarts, sandbox=sandbox, began=at
            )
        ]

    def _note_line(self, stream: _Stream, event: StepEvent) -> LogLine | None:
        """Return a line about a retry, or about what a step waits for; None for other events.

        The runner of a shared sandbox prints its own.
        """
        sandbox = self._sandboxes.get((event.step, event.attempt))
        if sandbox is None and self.per_step is False:
            return None
        if event.state == "retrying":
            text = f"modalrun: {event.reason or 'It is started again.'}"
        elif event.capacity_wait is not None:
            text = f"modalrun: {event.capacity_wait.text()}"
        else:
            return None
        return LogLine(
            event.step, SYSTEM, text, stream.time, sandbox or self.run_sandbox, event.tries
        )

    def _line(self, stream: _Stream, sandbox: str, source: str, text: str) -> LogLine:
        step, attempt = self._printing(stream, sandbox)
        attempt -= self._restarts.get((step, attempt), 0)
        return LogLine(step, source, text, stream.time, sandbox, attempt)

    def _printing(self, stream: _Stream, sandbox: str) -> tuple[str | None, int]:
        """Return the step and the attempt that print to a stream now."""
        if sandbox in self.run_sandboxes and stream.step is not None:
            return stream.step, self._attempts.get(stream.step, 1)
        if stream.step is not None:
            # The sandbox is kept warm for several steps.
            return stream.step, stream.attempt
        return self._steps.get(sandbox, (None, 1))


@dataclass(frozen=True)
class LineFilter:
    """Which lines are shown.

    Attributes:
        steps: Names of steps, with `*`, `?` and `[...]`; empty for all.
        sources: Of "stdout", "stderr" and "system"; empty for all.
        since: Seconds since the epoch; lines without a time pass.
        until: The same.
        search: A text that the line contains.
        driver: The driver's own lines instead of the steps'.
    """

    steps: Sequence[str] = ()
    sources: Sequence[str] = ()
    since: float | None = None
    until: float | None = None
    search: str = ""
    driver: bool = False

    def accepts(self, line: LogLine, *, per_step: bool) -> bool:
        """Return whether a line is shown.

        In `per_step` mode, lines of no step are the driver's and need `driver`. In `pipeline` mode
        they may explain why no step ran, and are shown.
        """
        return (
            self._accepts_step(line, per_step=per_step)
            and (not self.sources or line.source in self.sources)
            and (line.time is None or self.since is None or line.time >= self.since)
            and (line.time is None or self.until is None or line.time < self.until)
            and self.search in line.text
        )

    def _accepts_step(self, line: LogLine, *, per_step: bool) -> bool:
        if line.step is None:
            return self.driver or (not self.steps and (not per_step or line.source == SYSTEM))
        if self.driver:
            # The driver's line about a retry or a wait.
            return line.source == SYSTEM
        return any(fnmatchcase(line.step, name) for name in self.steps or ("*",))


class LineSelection:
    """Apply a filter; hold lines of no step back until the mode of the run is known.

    Attributes:
        printed: The steps that have printed anything so far.
        states: The last state of each step that events tell of.
        not_run: Why steps are not run, by step; sentences.
    """

    def __init__(self, line_filter: LineFilter, lines: RunLines) -> None:
        self.printed: set[str] = set()
        self.states: dict[str, str] = {}
        self.not_run: dict[str, str] = {}
        self._filter = line_filter
        self._lines = lines
        self._held: list[LogLine] = []

    def select(self, items: Sequence[Item]) -> list[LogLine]:
        """Return the lines to show now, of these items and of those held back."""
        for item in items:
            if isinstance(item, LogLine):
                self._held.append(item)
                if item.step is not None:
                    self.printed.add(item.step)
            elif isinstance(item, StepEvent):
                self.states[item.step] = item.state
                if item.reason and item.state == "not run":
                    self.not_run[item.step] = item.reason
        # A run that fails to start may print much and never an event.
        if self._lines.per_step is None and len(self._held) < _MAX_HELD:
            return []
        return self.rest()

    def rest(self) -> list[LogLine]:
        """Return the lines to show when nothing more comes."""
        held, self._held = self._held, []
        per_step = bool(self._lines.per_step)
        return [line for line in held if self._filter.accepts(line, per_step=per_step)]
