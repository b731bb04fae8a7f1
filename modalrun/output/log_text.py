"""How lines of a log look: marked with their step, on a terminal in its colour, or as JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from modalrun.output.sanitize import harmless, without_commands
from modalrun.run.log_lines import SYSTEM, LogLine

if TYPE_CHECKING:
    from modalrun.output.step_labels import Marks

JSON_VERSION = 1
_RESET = "\x1b[0m"
_DIM = "\x1b[2m"


def printer(*, jsonl: bool, timestamps: bool) -> Callable[[Sequence[LogLine]], None]:
    """What writes lines to stdout, a batch at a time. Raises BrokenPipeError once nobody reads."""
    looks = _Looks(
        None if jsonl else _marks(),
        colours=not jsonl and _wants_colours(),
        timestamps=timestamps,
    )
    ci = os.environ.get("GITHUB_ACTIONS") == "true"

    # What else imports or redirects meanwhile must not come between.
    stdout = sys.stdout

    def write(lines: Sequence[LogLine]) -> None:
        looks.learn(lines)
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

    def __init__(self, marks: Marks | None, *, colours: bool, timestamps: bool) -> None:
        self._marks = marks
        self._colours = colours
        self._timestamps = timestamps

    def learn(self, lines: Iterable[LogLine]) -> None:
        """Take up the steps of lines that are to be shown, so that these are aligned."""
        if self._marks is not None:
            self._marks.learn(line.step for line in lines if line.step is not None)

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
        if self._marks is None:
            return harmless(step, colours=False)
        mark, colour = self._marks.of(step)
        return f"\x1b[{colour}m{mark}{_RESET}" if self._colours else mark


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


def _marks() -> Marks | None:
    """How steps are named on a terminal; elsewhere their names are what they are."""
    if not sys.stdout.isatty():
        return None
    from modalrun.output.step_labels import Marks, widest

    return Marks(widest(shutil.get_terminal_size().columns))


def _wants_colours() -> bool:
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") not in {"dumb", ""}
    )
