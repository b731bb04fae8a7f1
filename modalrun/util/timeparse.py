"""Moments as people write them: "10m" ago, a date, or RFC 3339. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from modalrun.errors import UsageError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"((?:\d+(?:\.\d+)?[smhdw])+)")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def moment(text: str, *, option: str, now: datetime) -> datetime:
    """The moment that a text means, in UTC and with its time zone.

    Args:
        text: How long ago ("90s", "10m", "1h30m", "2d", "1w"), a date ("2026-11-23", its first
            moment here), or a date and time (RFC 3339; local time without a zone).
        option: What was given, for the message: "--since".
        now: The present, with its time zone; also the local one.

    Raises:
        UsageError: It is none of these, or nobody can count that far back.
    """
    text = text.strip()
    try:
        if _AGO.fullmatch(text):
            parts = {_UNITS[unit]: 0.0 for _, unit in _PART.findall(text)}
            for amount, unit in _PART.findall(text):
                parts[_UNITS[unit]] += float(amount)
            return (now - timedelta(**parts)).astimezone(timezone.utc)
        # Python 3.10 reads neither "Z" nor a blank that RFC 3339 allows in place of the "T".
        found = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
        return (found if found.tzinfo else found.replace(tzinfo=now.tzinfo)).astimezone(
            timezone.utc
        )
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option} {text}: this is no moment.",
            hint="As in '10m', '1h30m' or '2d' (ago), '2026-11-23', or '2026-11-23T17:50:00Z'.",
        ) from None
