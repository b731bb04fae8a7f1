"""Render lines of a log: labelled with their step, on a terminal in its colour, or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from modalrun.output.sanitize import harmless, json_safe, without_commands
from modalrun.output.step_labels import StepLabels, label_width
from modalrun.output.writer import write_rendered
from modalrun.run.failure import relative
from modalrun.run.log_lines import SYSTEM, LogLine

JSON_VERSION = 1
_RESET = "\x1b[0m"
_DIM = "\x1b[2m"


class LineRenderer:
    """Render lines of a log as text in which nothing can do harm."""

    def __init__(
        self, labels: StepLabels | None, *, colours: bool, timestamps: bool = False
    ) -> None:
        """
        Args:
            labels: The labels of steps on a terminal; None for their names.
            colours: Whether steps have a colour, and lines keep theirs.
            timestamps: Whether each line begins with its time.
        """
        self._labels = labels
        self._colours = colours
        self._timestamps = timestamps

    def render(self, line: LogLine) -> str:
        """Render a line."""
        text = harmless(relative(line.text), colours=self._colours)
        if self._colours and "\x1b" in text:
            text += _RESET
        if self._colours and line.source == SYSTEM:
            text = f"{_DIM}{text}{_RESET}"
        stamp = f"{rfc3339(line.time) or '-':<24} " if self._timestamps else ""
        return without_commands(f"{stamp}{self._label(line.step)}{text}")

    def _label(self, step: str | None) -> str:
        if step is None:
            return ""
        if self._labels is None:
            return f"{harmless(step, colours=False)} | "
        label, colour = self._labels.of(step)
        return f"\x1b[{colour}m{label} | {_RESET}" if self._colours else f"{label} | "


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
    from modalrun.output.console import is_live, make_console

    console = make_console(stderr=False)
    labels = StepLabels(label_width(console.width)) if console.file.isatty() else None
    colours = is_live(console) and not console.no_color
    return labels, LineRenderer(labels, colours=colours, timestamps=timestamps).render


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
