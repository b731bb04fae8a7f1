"""Show a run while it is submitted and followed: Rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import stat
import threading
import time
from functools import partial

from rich.console import Console

from modalrun.errors import Interrupted
from modalrun.output.live import LiveView
from modalrun.output.log_text import BarLines, LineRenderer
from modalrun.output.summary import print_summary
from modalrun.output.terminal.console import (
    fitted,
    is_live,
    is_terminal,
    make_console,
    print_lines,
    width_of,
)
from modalrun.output.terminal.spinner import Spinner
from modalrun.output.terminal.step_labels import StepLabels, label_width
from modalrun.output.terminal.writer import write_rendered
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.events import Redraw, StepEvent
from modalrun.run.log_lines import SYSTEM, LogLine
from modalrun.run.outcome import Outcome
from modalrun.run.progress import RunProgress
from modalrun.util import interrupts

_SIGNALLED = 128
"""Exit codes above it are those of a signal."""


class Reporter:
    """Show a run's output on stdout and stderr, and everything else on stderr."""

    def __init__(self, stdout: Console | None = None, stderr: Console | None = None) -> None:
        """
        Args:
            stdout: The console for the run's output; that of this process without one.
        """
        self._stdout = stdout or make_console(stderr=False)
        self._stderr = stderr or make_console(stderr=True)
        self._labels = StepLabels(label_width(self._stderr.width))
        self._renderers = {
            console: LineRenderer(
                self._labels if is_terminal(console) else None,
                colours=console.is_terminal and not console.no_color,
                width=partial(getattr, console, "width") if is_terminal(console) else None,
            )
            for console in (self._stdout, self._stderr)
        }
        self._spinner = Spinner(console=self._stderr)
        self._live: LiveView | None = None
        self._bars = BarLines()
        self._limit: float | None = None
        self._lock = threading.Lock()
        # A reader of stdout that does not read must not hold up messages on stderr.
        one = _is_one_file(self._stdout, self._stderr)
        self._stdout_lock = self._lock if one else threading.Lock()

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt | Interrupted):
            self._limit = interrupts.OUTPUT_SECONDS
        interrupts.within(self._limit, self.close)

    def close(self) -> None:
        """Remove everything that is redrawn from the terminal."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        with self._lock:
            self._spinner.end()

    def phase(self, text: str) -> None:
        """Show what is being waited for; on a terminal, until something else is shown."""
        if self._live is not None:
            self._live.note(text)
            return
        with self._lock:
            self._spinner.show(text)

    def waiting(self, wait: CapacityWait | None) -> None:
        """Show that Modal has no place yet: on a terminal with the time, else in one line."""
        if wait is None:
            self.phase("Creating the sandbox")
        elif is_live(self._stderr):
            with self._lock:
                self._spinner.show(lambda: _capitalised(wait.text(time.time())))
        else:
            self.say(f"  {_capitalised(wait.text())}")

    def say(self, text: str, style: str | None = None) -> None:
        """Print a message of one or more lines to stderr."""
        lines = fitted(text, width_of(self._stderr), style or "")
        if self._live is not None:
            self._live.show(lines)
            return
        with self._lock:
            self._spinner.end()
            print_lines(self._stderr, lines)

    def begin(self, progress: RunProgress) -> None:
        """Begin the run's output; on a terminal, show its steps below it."""
        self._labels.learn(progress.rows)
        with self._lock:
            self._spinner.end()
            # The reader of a pipe (`| grep`) may write to the same terminal, across the table.
            if is_live(self._stderr) and not _is_pipe(self._stdout):
                self._live = LiveView(self._stderr, progress)
                self._live.start()

    def event(self, event: StepEvent | Redraw) -> None:
        """Print a progress bar now and then; the live view reads all from the progress."""
        if isinstance(event, Redraw) and self._live is None and self._bars.due(event):
            self.line(LogLine(event.step, SYSTEM, event.text, None, ""))

    def line(self, line: LogLine) -> None:
        """Print a line of the run's output, labelled with its step."""
        console = self._stdout if line.source == "stdout" else self._stderr
        text = self._renderers[console].render(line)
        if self._live is not None and is_terminal(console):
            # Both streams are the same terminal; only through the view does the table stay below.
            self._live.show([text])
            return
        with self._lock:
            self._spinner.end()
        with self._stdout_lock if console is self._stdout else self._lock:
            write_rendered(console.file, f"{text}\n")

    def question(self, text: str | None) -> None:
        """Show a question that a key answers, until it is None."""
        if self._live is not None:
            self._live.question(text)
        elif text is not None:
            self.say(text, "bold yellow")

    def summary(self, outcome: Outcome) -> None:
        """Print how the run ended."""

        def show() -> None:
            self.close()
            with self._lock:
                print_summary(self._stderr, outcome)

        if outcome.exit_code > _SIGNALLED:
            self._limit = interrupts.OUTPUT_SECONDS
        interrupts.within(self._limit, show)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _is_one_file(first: Console, second: Console) -> bool:
    try:
        one, other = (os.fstat(console.file.fileno()) for console in (first, second))
    except (OSError, ValueError):
        return True
    return os.path.samestat(one, other)


def _is_pipe(console: Console) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(console.file.fileno()).st_mode)
    except (OSError, ValueError):
        # A stream of another kind, as in a notebook.
        return False
