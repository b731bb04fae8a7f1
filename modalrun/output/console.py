"""What `submit` shows: Rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import os
import stat
import sys
import threading
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from modalrun.output.format import STYLES, duration
from modalrun.output.live import LiveView, Verbatim
from modalrun.output.sanitize import harmless
from modalrun.output.spinner import Phase, is_live
from modalrun.output.step_labels import Marks, shortened, widest
from modalrun.output.wrapping import terminal_width, wrapped
from modalrun.run.events import StepEvent
from modalrun.run.log_lines import SYSTEM, LogLine
from modalrun.run.outcome import Outcome
from modalrun.run.progress import RunProgress, StepProgress

_DIM = "\x1b[2m"
_RESET = "\x1b[0m"


def reporter() -> Reporter:
    """The one for where this process runs."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from modalrun.output.github import GitHubReporter

        return GitHubReporter()
    return Reporter()


class Reporter:
    """Shows a run as it goes: the run's output on stdout and stderr, talk on stderr."""

    def __init__(self) -> None:
        self._consoles = {
            "stdout": make_console(stderr=False),
            "stderr": make_console(stderr=True),
        }
        self._talk = self._consoles["stderr"]
        self._lock = threading.Lock()
        self._phase = Phase()
        self._live: LiveView | None = None
        self._marks = Marks(widest(self._talk.width))

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing that is redrawn stays on the terminal."""
        self._end()

    def phase(self, text: str) -> None:
        """What is being waited for now: on a terminal, until the next thing is shown."""
        if self._live is not None:
            self._live.note(text)
            return
        with self._lock:
            self._phase.show(self._talk, text)

    def say(self, text: str, style: str | None = None) -> None:
        """A line of talk."""
        lines = [Text(line, style=style or "") for line in self._fitting(text)]
        if self._live is not None:
            self._live.show(lines)
            return
        with self._lock:
            self._phase.end()
            for line in lines:
                self._talk.print(line)

    def begin(self, board: RunProgress) -> None:
        """The run's output follows; on a terminal its steps are shown below it."""
        self._marks.learn(board.rows)
        with self._lock:
            self._phase.end()
            # Whoever reads a pipe (`| grep`) may write to the same terminal, across the table.
            if is_live(self._talk) and not _is_pipe(self._consoles["stdout"]):
                self._live = LiveView(self._talk, board)
                self._live.start()

    def event(self, event: StepEvent) -> None:
        """A step's state has changed; the live view looks at the board by itself."""

    def line(self, line: LogLine) -> None:
        """A line of the run's output, marked with its step."""
        console = self._consoles.get(line.source, self._talk)
        if not console.is_terminal:
            with self._lock:
                self._phase.end()
                mark = f"{line.step} | " if line.step else ""
                console.file.write(f"{mark}{harmless(line.text, colours=False)}\n")
                console.file.flush()
            return
        shown = self._marked(line, colours=not console.no_color)
        if self._live is not None:
            # Both streams are the same terminal; only through the view does the table stay below.
            self._live.show([shown])
            return
        with self._lock:
            self._phase.end()
            console.print(Verbatim([shown]))

    def question(self, text: str | None) -> None:
        """A question to be answered by a key, until it is None again."""
        if self._live is not None:
            self._live.question(text)
        elif text is not None:
            self.say(text, "bold yellow")

    def summary(self, outcome: Outcome) -> None:
        """The run id, each step's state and time, and how to see more."""
        self._end()
        with self._lock:
            if outcome.steps:
                self._talk.print()
                width = self._talk.width if self._talk.is_terminal else None
                print_wide(self._talk, _steps(outcome.steps, width))
                self._talk.print()
            style = "bold green" if outcome.exit_code == 0 else "bold red"
            for line in self._fitting(outcome.headline):
                self._talk.print(Text(line, style=style))
            for step in outcome.steps:
                if step.state == "failed" and step.reason:
                    why = harmless(step.reason.strip().partition("\n")[0], colours=False)
                    for line in self._fitting(f"  {step.name}: {why}", indent=4):
                        self._talk.print(Text(line))
            for label, value in outcome.details:
                first, *rest = self._fitting(f"  {label:<8}{value}", indent=10)
                shown = Text(first)
                shown.stylize("dim", 0, 10)
                self._talk.print(shown)
                for line in rest:
                    self._talk.print(Text(line))

    def _fitting(self, text: str, *, indent: int | None = None) -> list[str]:
        """A text of our own in lines that fit the terminal."""
        width = terminal_width(self._talk.file)
        return [
            part
            for line in text.split("\n")
            for part in wrapped(line, width, indent=indent) or [""]
        ]

    def _marked(self, line: LogLine, *, colours: bool) -> str:
        text = harmless(line.text, colours=colours)
        if "\x1b" in text:
            text += _RESET
        if line.step is None:
            return text
        if line.source == SYSTEM and colours:
            text = f"{_DIM}{text}{_RESET}"
        mark, colour = self._marks.of(line.step)
        return f"\x1b[{colour}m{mark} | {_RESET}{text}" if colours else f"{mark} | {text}"

    def _end(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        with self._lock:
            self._phase.end()


def _is_pipe(console: Console) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(console.file.fileno()).st_mode)
    except (OSError, ValueError):
        # A stream of another kind, as in a notebook.
        return False


def _steps(steps: Sequence[StepProgress], width: int | None) -> Table:
    """The steps of a run that is over; with a width, names have the room that is left."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("step", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    has_gpu = any(step.gpu for step in steps)
    if has_gpu:
        table.add_column("gpu", no_wrap=True)
    rows = []
    for step in steps:
        cells = [Text(state(step), style=STYLES.get(step.state, ""))]
        cells.append(Text(duration(step.started, step.ended)))
        cells += [Text(step.gpu or "-")] if has_gpu else []
        rows.append(cells)
    names = {step.name: step.name for step in steps}
    if width is not None:
        columns = zip(*rows, strict=True)
        taken = sum(2 + max(5, *(cell.cell_len for cell in column)) for column in columns)
        names = shortened(names, max(8, width - taken))
    for step, cells in zip(steps, rows, strict=True):
        table.add_row(Text(names[step.name]), *cells)
    return table


def state(step: StepProgress) -> str:
    """A step's state as the summary shows it."""
    return step.state if step.attempt == 1 else f"{step.state} (try {step.attempt})"


def print_wide(console: Console, shown: RenderableType) -> None:
    """Print something; in a pipe, which has no width, in lines as long as they need to be."""
    if console.is_terminal:
        console.print(shown)
        return
    text = io.StringIO()
    Console(file=text, width=10_000, color_system=None, markup=False, emoji=False).print(shown)
    for line in text.getvalue().splitlines():
        console.file.write(f"{line.rstrip()}\n")
    console.file.flush()


def make_console(*, stderr: bool) -> Console:
    """A console that takes nothing in a text for markup, and fails at no character."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        # A terminal or pipe that can't show a character must not end the run's output.
        stream.reconfigure(errors="replace")
    return Console(stderr=stderr, markup=False, highlight=False, soft_wrap=True, emoji=False)
