"""The deadline of a sandbox, counted from its creation."""

from __future__ import annotations

import time

import pytest

from modalrun.driver.processes.deadline import age, margin


@pytest.mark.parametrize(
    ("timeout", "seconds"), [(1, 0.5), (5, 1.0), (20, 4.0), (60, 6.0), (300, 30.0), (86_400, 30.0)]
)
def test_margin(timeout: float, seconds: float) -> None:
    assert margin(timeout) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("seconds_ago", "counted"),
    [(4, 4), (50, 50), (-600, 0), (51, 0), (86_400, 0)],
    ids=["soon", "late", "from the future", "too late for its timeout", "yesterday"],
)
def test_the_deadline_counts_from_the_creation_unless_a_clock_is_wrong(
    monkeypatch: pytest.MonkeyPatch, seconds_ago: float, counted: float
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    monkeypatch.setenv("MODALRUN_CREATED", str(1_800_000_000 - seconds_ago))

    assert age(100) == counted
    monkeypatch.delenv("MODALRUN_CREATED")
    assert age(100) == 0
