"""Times as people write them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest

from modalrun.errors import UsageError
from modalrun.util.timeparse import duration, moment, written

NOW = datetime(2026, 11, 23, 16, 0, tzinfo=timezone.utc)


@pytest.fixture
def _in_europe() -> Iterator[None]:
    """Set the local time zone to one with summer time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_in_europe")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", "2026-11-23T15:58:30+00:00"),
        ("10m", "2026-11-23T15:50:00+00:00"),
        ("1h30m", "2026-11-23T14:30:00+00:00"),
        ("1.5h", "2026-11-23T14:30:00+00:00"),
        ("2d", "2026-11-21T16:00:00+00:00"),
        ("1w", "2026-11-16T16:00:00+00:00"),
        ("2026-11-23", "2026-11-22T23:00:00+00:00"),
        # Midnight in summer, while it is winter now.
        ("2026-07-15", "2026-07-14T22:00:00+00:00"),
        ("2026-11-23T17:50:00", "2026-11-23T16:50:00+00:00"),
        ("2026-11-23 17:50", "2026-11-23T16:50:00+00:00"),
        ("2026-11-23T17:50:00Z", "2026-11-23T17:50:00+00:00"),
        ("2026-11-23T17:50:00.250+01:00", "2026-11-23T16:50:00.250000+00:00"),
        ("1000-01-02", "1000-01-01T23:00:00+00:00"),
    ],
)
def test_times(text: str, expected: str) -> None:
    assert moment(text, option="--since", now=NOW).isoformat() == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "10", "-5m", "m", "yesterday", "2026-13-01", "9999999w"),
        # ZenML's filter takes no year before 1000.
        *("60000w", "0900-01-01"),
    ],
)
def test_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        moment(text, option="--since", now=NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("0.5", 0.5),
        ("90s", 90),
        (" 2h ", 7200),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1.1h", 3960),
        ("0.7m0.1h", 402),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "-1", "2 h", "1h30", "2H", "nan", "inf", "9" * 999, "9" * 999 + "w"),
        *("1_000", "1e3", "1_0s", "٣", "٣s", "+5", ".5", "5."),
    ],
)
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (90, "1m30s"), (3600, "1h"), (21600, "6h"), (90061, "25h1m1s")]
)
def test_a_duration_is_written_as_it_is_read(seconds: int, text: str) -> None:
    assert written(seconds) == text
    assert duration(text) == seconds
