"""Parse durations and times as people write them: "1h30m", a date, or RFC 3339. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from fractions import Fraction

from modalrun.errors import UsageError

DURATION_FORMS = "a whole number of seconds, or a duration such as '90s', '2h' or '1h30m'"

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FIRST_YEAR = 1000
"""ZenML's filter takes years of four digits."""

_NUMBER = r"[0-9]{1,15}(?:\.[0-9]+)?"
_DURATION = re.compile(rf"(?:{_NUMBER}[smhdw])+")
_PART = re.compile(rf"({_NUMBER})([smhdw])")


def duration(text: str) -> float:
    """Parse a duration to seconds: "90s", "2h", "1h30m", or a number of seconds.

    Raises:
        ValueError: It is none of these.
    """
    text = text.strip()
    if _DURATION.fullmatch(text):
        # As floats, 1.1 hours are not a whole number of seconds.
        parts = _PART.findall(text)
        return float(sum(Fraction(number) * _SECONDS[unit] for number, unit in parts))
    if not re.fullmatch(_NUMBER, text):
        raise ValueError(f"not a duration: {text!r}")
    return float(text)


def written(seconds: int) -> str:
    """Write a duration as `duration` reads it: 21600 as "6h", 90 as "1m30s", 0 as "0s"."""
    hours, rest = divmod(seconds, 3600)
    parts = {"h": hours, "m": rest // 60, "s": rest % 60}
    return "".join(f"{number}{unit}" for unit, number in parts.items() if number) or "0s"


def moment(text: str, *, option: str, now: datetime) -> datetime:
    """Parse a time; return it in UTC.

    Args:
        text: How long ago ("90s", "10m", "1h30m", "2d", "1w"), a date ("2026-11-23", its begin in
            local time), or a date and time (RFC 3339; local time without a zone).
        option: The option's name, for the message: "--since".
        now: The time now.

    Raises:
        UsageError: It is none of these, or out of range.
    """
    text = text.strip()
    try:
        if _DURATION.fullmatch(text):
            found = now - timedelta(seconds=duration(text))
        else:
            # Python 3.10 reads neither "Z" nor a blank that RFC 3339 allows in place of the "T".
            found = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
        # Local time had the offset of that day, not today's.
        found = found.astimezone(timezone.utc)
        if found.year < _FIRST_YEAR:
            raise ValueError
        return found
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option} {text}: this is not a time.",
            hint="As in '10m', '1h30m' or '2d' (ago), '2026-11-23', or '2026-11-23T17:50:00Z'.",
        ) from None
