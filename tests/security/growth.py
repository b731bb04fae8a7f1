"""Measure that the time of a parser grows no faster than its input."""

from __future__ import annotations

import time
from collections.abc import Callable


def assert_linear(parse: Callable[[str], object], text: Callable[[int], str], size: int) -> None:
    """Assert that four times the input takes about four times the time; sixteen is quadratic."""
    short, long = (_seconds(parse, text(n)) for n in (size, 4 * size))
    # What takes no time is not measured: a machine has pauses of its own.
    assert long < 9 * short + 0.05, f"{short:.4f} s for {size}, {long:.4f} s for four times that"


def _seconds(parse: Callable[[str], object], text: str) -> float:
    found = []
    for _ in range(3):
        began = time.process_time()
        parse(text)
        found.append(time.process_time() - began)
    return min(found)
