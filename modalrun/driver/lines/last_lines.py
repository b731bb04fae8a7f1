"""Keep the last lines that a process has printed: they are told with its death."""

from __future__ import annotations

import re
import threading

from modalrun.run.contract import LAST_LINES
from modalrun.run.event_proof import MARK
from modalrun.util import redraws

_BYTES = 8_192
_REDRAWN = 65_536
"""Bytes of the newest output that are looked at."""

_OWNER = '{"modalrun": "lines"'
"""The event before the lines of a step."""

_START = re.compile(r"(?:\x1b\[[\d;]*m)*Step \S+ has started\.(?:\x1b\[[\d;]*m)*\s*")
"""What ZenML logs when a step begins (`orchestrators/step_launcher.py`, ZenML 0.98.0)."""


class LastLines:
    """The last lines of both streams of a process, in the order in which they were read."""

    def __init__(self) -> None:
        self._kept = b""
        self._lock = threading.Lock()

    def add(self, data: bytes) -> None:
        """Add what was read."""
        with self._lock:
            # A progress bar must not push out the lines before it.
            kept = b"".join(redraws.split_bytes(self._kept + data[-_REDRAWN:]))
            self._kept = kept[-_BYTES:]

    def clear(self) -> None:
        """Forget all lines: those of another step follow."""
        self._kept = b""

    def lines(self) -> list[str]:
        """Return the last lines of the step that printed last, without what is not its own."""
        owner, kept = "", list[str]()
        for line in self._kept.decode("utf-8", "replace").split("\n"):
            if MARK not in line:
                shown = redraws.state(line)
                kept += [shown] if shown.strip() and not _START.fullmatch(shown) else []
            elif _OWNER in line and (event := line[line.index("{") :]) != owner:
                owner, kept = event, []
        return kept[-LAST_LINES:]

    @staticmethod
    def of(text: str) -> list[str]:
        """Return the last lines of the step that printed last in an output."""
        last = LastLines()
        last.add(text.encode())
        return last.lines()

    def encoded(self) -> bytes:
        """Return the last lines as one text."""
        return "\n".join(self.lines()).encode()
