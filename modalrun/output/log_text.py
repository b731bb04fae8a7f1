"""How lines of a log look: marked with their step, on a terminal in its colour, or as JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from datetime import datetime, timezone

from modalrun.loglines import SYSTEM, LogLine
from modalrun.output.text import harmless, without_commands

JSON_VERSION = 1
_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)
"""SGR codes for the marks of steps, in the order in which the steps appear; no red, no grey."""

_RESET = "\x1b[0m"
_DIM = "\x1b[2m"
_WIDEST_MARK = 24


def printer(*, jsonl: bool, timestamps: bool) -> Callable[[Iterable[LogLine]], None]:
    """What writes lines to stdout, a batch at a time. Raises BrokenPipeError once nobody reads."""
    colours = not jsonl and _wants_colours()
    looks = _Looks(colours=colours, timestamps=timestamps)
    ci = os.environ.get("GITHUB_ACTIONS") == "true"

    # What else imports or redirects meanwhile must not come between.
    stdout = sys.stdout

    def write(lines: Iterable[LogLine]) -> None:
        texts = [as_json(line) if jsonl else looks.of(line) for line in lines]
        if ci and not jsonl:
            texts = [without_commands(text) for text in texts]
        if texts:
            stdout.write("\n".join(texts) + "\n")
            stdout.flush()

    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        # A terminal or pipe that can't show a character must not end the output.
        reconfigure(errors="replace")
    return write


class _Looks:
    """Lines as text."""

    def __init__(self, *, colours: bool, timestamps: bool) -> None:
        self._colours = colours
        self._timestamps = timestamps
        self._marks: dict[str, str] = {}
        self._width = 0

    def of(self, line: LogLine) -> str:
        """A line with its mark, and nothing in it that could do harm."""
        text = harmless(line.text, colours=self._colours)
        if self._colours and "\x1b" in text:
            text += _RESET
        stamp = f"{rfc3339(line.time) or '-':<24} " if self._timestamps else ""
        if line.source == SYSTEM and self._colours:
            text = f"{_DIM}{text}{_RESET}"
        if line.step is None:
            return stamp + text
        return f"{stamp}{self._mark(line.step)} | {text}"

    def _mark(self, step: str) -> str:
        name = harmless(step, colours=False)
        if not self._colours:
            return name
        # Grows with the names that have appeared, so that what follows is aligned.
        self._width = max(self._width, min(len(name), _WIDEST_MARK))
        if step not in self._marks:
            self._marks[step] = f"\x1b[{_COLOURS[len(self._marks) % len(_COLOURS)]}m"
        return f"{self._marks[step]}{name:<{self._width}}{_RESET}"


def as_json(line: LogLine) -> str:
    """A line as one JSON object: its text as it was printed, control characters escaped."""
    return json.dumps(
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


def rfc3339(time: float | None) -> str | None:
    """A moment in UTC, to the millisecond: "2026-11-23T17:50:00.123Z"."""
    if time is None:
        return None
    moment = datetime.fromtimestamp(time, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _wants_colours() -> bool:
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") not in {"dumb", ""}
    )
