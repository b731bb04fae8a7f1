"""How long to wait before something that failed is tried again: each time longer, up to a limit."""

from __future__ import annotations

from collections.abc import Iterator

FIRST = 0.2
LONGEST = 5.0
"""Seconds."""


def pauses(first: float = FIRST, longest: float = LONGEST) -> Iterator[float]:
    """The seconds to wait before each further try, each twice the one before, without an end."""
    pause = first
    while True:
        yield pause
        pause = min(longest, pause * 2)
