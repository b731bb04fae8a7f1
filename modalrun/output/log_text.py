"""Render lines of a log: labelled with their step, on a terminal in its colour, or as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from rich.cells import cell_len

from modalrun.output.terminal.sanitize import harmless, json_safe, without_commands
from modalrun.output.terminal.step_labels import StepLabels, label_width
from modalrun.output.terminal.wrapping import wrapped_in_colour
from modalrun.output.terminal.writer import write_rendered
from modalrun.run.events import Redraw
from modalrun.run.failure import relative
from modalrun.run.log_lines import SYSTEM, LogLine

JSON_VERSION = 1
_SHORT = 20
"""Columns that a line always has."""

BAR_SECONDS = 30.0
"""Between two states of a progress bar in a log."""

_RESET = "\x1b[0m"
_DIM = "\x1b[2m"


class BarLines:
    """Choose the states of progress bars to print as lines, where nothing can be redrawn."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def due(self, bar: Redraw) -> bool:
        """Return whether to print it: every `BAR_SECONDS`, for a bar that lasts so long."""
        if not bar.text:
            # Its last state is a line of the log.
            self._due.pop(bar.step, None)
            return False
        now = time.monotonic()
        due = now >= self._due.setdefault(bar.step, now + BAR_SECONDS)
        if due:
            self._due[bar.step] = now + BAR_SECONDS
        return due


class LineRenderer:
    """Render lines of a log as text in which nothing can do harm."""

    def __init__(
        self,
        labels: StepLabels | None,
        *,
        colours: bool,
        timestamps: bool = False,
        width: Callable[[], int] | None = None,
    ) -> None:
        """
        Args:
            labels: The labels of steps on a terminal; None for their names.
            width: Returns the columns of the terminal; None for anything else.
            colours: Whether steps have a colour, and lines keep theirs.
            timestamps: Whether each line begins with its time.
        """
        self._labels = labels
        self._colours = colours
        self._timestamps = timestamps
        self._width = width

    def render(self, line: LogLine) -> str:
        """Render a line."""
        text = harmless(relative(line.text), colours=self._colours)
        stamp = f"{rfc3339(line.time) or '-':<24} " if self._timestamps else ""
        label, columns = self._label(line.step)
        if self._width is not None and len(text) > _SHORT:
            indent = len(stamp) + columns
            parts = wrapped_in_colour(text, max(_SHORT, self._width() - indent))
            text = f"\n{' ' * indent}".join(parts)
        if self._colours and "\x1b" in text:
            text += _RESET
        if self._colours and line.source == SYSTEM:
            text = f"{_DIM}{text}{_RESET}"
        return without_commands(f"{stamp}{label}{text}")

    def _label(self, step: str | None) -> tuple[str, int]:
        """Return the label of a step, and its columns."""
        if step is None:
            return "", 0
        if self._labels is None:
            label = f"{harmless(step, colours=False)} | "
            return label, cell_len(label)
        name, colour = self._labels.of(step)
        label = f"{name} | "
        return f"\x1b[{colour}m{label}{_RESET}" if self._colours else label, cell_len(label)


def printer(*, jsonl: bool, timestamps: bool) -> Callable[[Sequence[LogLine]], None]:
    """Create a function that writes batches of lines to stdout.

    It raises BrokenPipeError once the reader of stdout has gone.
    """
    # Code that runs meanwhile may redirect stdout.
    stdout = sys.stdout
    labels, render = (None, as_json) if jsonl else _for_stdout(timestamps=timestamps)

    def write(lines: Sequence[LogLine]) -> None:
        if labels is not None:
            labels.learn(line.step for line in lines if line.step is not None)
        if lines:
            write_rendered(stdout, "".join(f"{render(line)}\n" for line in lines))

    return write


def _for_stdout(*, timestamps: bool) -> tuple[StepLabels | None, Callable[[LogLine], str]]:
    """Create the labels of steps, on a terminal, and a function that renders a line."""
    from modalrun.output.terminal.console import is_live, is_terminal, make_console

    console = make_console(stderr=False)
    labels = StepLabels(label_width(console.width)) if is_terminal(console) else None
    colours = is_live(console) and not console.no_color
    width = (lambda: console.width) if labels is not None else None
    renderer = LineRenderer(labels, colours=colours, timestamps=timestamps, width=width)
    return labels, renderer.render


def as_json(line: LogLine) -> str:
    """Render a line as one JSON object: its text as printed, control characters escaped."""
    text = json.dumps(
        {
            "version": JSON_VERSION,
            "kind": "line",
            "step": line.step,
            "attempt": line.attempt if line.step is not None else None,
            "source": line.source,
            "time": rfc3339(line.time),
            "sandbox": line.sandbox or None,
            "text": line.text,
        }
    )
    return json_safe(text)


def rfc3339(time: float | None) -> str | None:
    """Format seconds since the epoch as UTC with milliseconds: "2026-11-23T17:50:00.123Z"."""
    if time is None:
        return None
    moment = datetime.fromtimestamp(time, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
