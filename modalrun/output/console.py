"""What `submit` shows: Rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import sys
import threading
from datetime import datetime

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from modalrun.outcome import Outcome, StepRecord
from modalrun.output.text import LineAssembler, harmless

STYLES = {
    "completed": "green",
    "cached": "cyan",
    "failed": "bold red",
    "stopped": "yellow",
    "running": "blue",
    "not run": "dim",
}


class Reporter:
    """Shows a run as it goes: the run's output on stdout and stderr, talk on stderr."""

    def __init__(self) -> None:
        self._consoles = {
            "stdout": make_console(stderr=False),
            "stderr": make_console(stderr=True),
        }
        self._talk = self._consoles["stderr"]
        self._assemblers = {source: LineAssembler() for source in self._consoles}
        self._lock = threading.Lock()
        self._closed: set[str] = set()
        self._status: Status | None = None

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._end_phase()

    def phase(self, text: str) -> None:
        """What is being waited for now: on a terminal, until the next thing is shown."""
        with self._lock:
            self._end_phase()
            if self._talk.is_terminal:
                self._status = self._talk.status(Text(f"{text} ..."))
                self._status.start()

    def say(self, text: str, style: str | None = None) -> None:
        """A line of talk."""
        with self._lock:
            self._end_phase()
            self._talk.print(Text(text, style=style or ""))

    def output(self, source: str, text: str) -> None:
        """A piece of the run's output, as it came."""
        with self._lock:
            self._print_lines(source, self._assemblers[source].feed(text))

    def output_ended(self) -> None:
        """Print what is left of lines that no line feed ended."""
        with self._lock:
            for source, assembler in self._assemblers.items():
                self._print_lines(source, assembler.flush())

    def summary(self, outcome: Outcome) -> None:
        """The run id, each step's state and time, and how to see more."""
        self.output_ended()
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("step", no_wrap=True, overflow="ellipsis")
        table.add_column("state", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        for step in outcome.steps:
            table.add_row(
                Text(step.name),
                Text(_state(step), style=STYLES.get(step.status, "")),
                duration(step.start, step.end),
            )
        with self._lock:
            self._end_phase()
            self._talk.print()
            if outcome.steps:
                self._talk.print(table)
                self._talk.print()
            style = "bold green" if outcome.exit_code == 0 else "bold red"
            self._talk.print(Text(outcome.headline, style=style))
            for label, value in outcome.details:
                self._talk.print(Text.assemble((f"  {label:<8}", "dim"), value))

    def _end_phase(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _print_lines(self, source: str, lines: list[str]) -> None:
        if not lines:
            return
        self._end_phase()
        console = self._consoles[source]
        if source in self._closed:
            return
        try:
            self._write(console, lines)
        except BrokenPipeError:
            # The reader of a pipe has left (`| head`); the run goes on and keeps its exit code.
            self._closed.add(source)

    @staticmethod
    def _write(console: Console, lines: list[str]) -> None:
        if console.is_terminal and not console.no_color:
            for line in lines:
                console.print(Text.from_ansi(harmless(line, colours=True)))
        else:
            console.file.write("".join(f"{harmless(line, colours=False)}\n" for line in lines))
            console.file.flush()


def _state(step: StepRecord) -> str:
    return step.status if step.attempt == 1 else f"{step.status} (try {step.attempt})"


def duration(start: datetime | None, end: datetime | None) -> str:
    """The time between two moments as people read it: "0.4 s", "12 s", "3 m 05 s", "2 h 07 m"."""
    if start is None or end is None:
        return ""
    seconds = (end - start).total_seconds()
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} m"


def make_console(*, stderr: bool) -> Console:
    """A console that takes nothing in a text for markup, and fails at no character."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        # A terminal or pipe that can't show a character must not end the run's output.
        stream.reconfigure(errors="replace")
    return Console(stderr=stderr, markup=False, highlight=False, soft_wrap=True, emoji=False)
