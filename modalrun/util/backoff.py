"""Compute growing pauses between attempts."""

from __future__ import annotations

from collections.abc import Iterator


def pauses(first: float = 0.2, longest: float = 5.0) -> Iterator[float]:
    """Yield the seconds to wait before each further attempt: twice the last, up to `longest`."""
    pause = first
    while True:
        yield pause
        pause = min(longest, pause * 2)
