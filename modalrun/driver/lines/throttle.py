"""Pass on what a process prints, and of a line that it redraws only a few states a second."""

from __future__ import annotations

from modalrun.util import redraws

PAUSE = 0.4
"""Seconds between two states of a line."""

_UP = b"\x1b[A"


class Throttle:
    """Hold back the states of a redrawn line that others follow; the last one always passes.

    Attributes:
        due: When to call `rest`, in the seconds of the caller's clock; None if nothing waits.
    """

    def __init__(self) -> None:
        self.due: float | None = None
        self._held = b""
        self._free_at = 0.0

    def feed(self, data: bytes, now: float) -> bytes:
        """Take the next piece of the output; return what is passed on now."""
        if not self._held and b"\r" not in data:
            return data
        whole, rest = redraws.split_bytes(self._held + data)
        self._held, self.due = b"", None
        if b"\r" not in rest or len(rest) > redraws.LONGEST:
            return whole + rest
        if now < self._free_at:
            self._held, self.due = rest, self._free_at
            return whole
        self._free_at = now + PAUSE
        # Whether it goes down again, the next piece tells.
        shown = rest
        while shown.endswith(_UP):
            shown = shown[: -len(_UP)]
        self._held = rest[len(shown) :]
        return whole + shown

    def rest(self) -> bytes:
        """Return what is held back."""
        held, self._held = self._held, b""
        if self.due is not None:
            self._free_at, self.due = self.due + PAUSE, None
        return held
