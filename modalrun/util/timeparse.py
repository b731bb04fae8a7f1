"""Parse a time as people write it: "10m" ago, a date, or RFC 3339. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from modalrun.errors import UsageError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def moment(text: str, *, option: str, now: datetime) -> datetime:
    """Parse a time; return it in UTC.

    Args:
        text: How long ago ("90s", "10m", "1h30m", "2d", "1w"), a date ("2026-11-23", its begin in
            local time), or a date and time (RFC 3339; local time without a zone).
        option: The option's name, for the message: "--since".
        now: The time now, in the local time zone.

    Raises:
        UsageError: It is none of these, or out of range.
    """
    text = text.strip()
    try:
        if _AGO.fullmatch(text):
            parts = [timedelta(**{_UNITS[unit]: float(n)}) for n, unit in _PART.findall(text)]
            return (now - sum(parts, timedelta())).astimezone(timezone.utc)
        # Python 3.10 reads neither "Z" nor a blank that RFC 3339 allows in place of the "T".
        found = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
        local = found if found.tzinfo else found.replace(tzinfo=now.tzinfo)
        return local.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option} {text}: this is not a time.",
            hint="As in '10m', '1h30m' or '2d' (ago), '2026-11-23', or '2026-11-23T17:50:00Z'.",
        ) from None
