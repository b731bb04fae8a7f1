"""The rate at which sandboxes are created."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modalrun.util.rate_limit import Pace


def test_a_burst_at_once_and_then_the_rate() -> None:
    pace = Pace(rate=5, burst=3)
    waits = [round(pace.wait(100.0), 6) for _ in range(6)]
    assert waits == [0, 0, 0, 0.2, 0.4, 0.6]


def test_the_bucket_fills_again() -> None:
    pace = Pace(rate=5, burst=2)
    for _ in range(4):
        pace.wait(0.0)
    assert pace.wait(10.0) == 0
    assert pace.wait(10.0) == 0
    assert round(pace.wait(10.0), 6) == 0.2


@given(st.lists(st.floats(0, 2), max_size=200), st.integers(1, 20), st.floats(0.5, 50))
def test_never_more_than_the_burst_and_the_rate_allow(
    gaps: list[float], burst: int, rate: float
) -> None:
    pace, now, used = Pace(rate, burst), 0.0, []
    for gap in gaps:
        now += gap
        used.append(now + pace.wait(now))
    for first, start in enumerate(used):
        for last in range(first, len(used)):
            count = last - first + 1
            assert count <= burst + rate * (used[last] - start) + 1e-6
