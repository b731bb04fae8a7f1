"""Format times for people. Pure."""

from __future__ import annotations


def duration_of(seconds: float, *, whole: bool = False) -> str:
    """Format a time: "0.4 s", "12 s", "3 m 05 s", "2 h 07 m".

    Args:
        whole: Whether the time is known to the second only.
    """
    if round(seconds, 1) < 10 and not whole:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} m"
