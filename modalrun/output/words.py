"""How states and times are written. Pure."""

from __future__ import annotations

from datetime import datetime

STYLES = {
    "completed": "green",
    "cached": "cyan",
    "failed": "bold red",
    "stopped": "yellow",
    "running": "blue",
    "starting": "blue",
    "retrying": "yellow",
    "not run": "dim",
    "waiting": "dim",
}
"""Rich's style for each state of a step."""


def duration(start: datetime | None, end: datetime | None) -> str:
    """The time between two moments; nothing where one of them is not known."""
    if start is None or end is None:
        return ""
    return duration_of((end - start).total_seconds())


def duration_of(seconds: float) -> str:
    """A time as people read it: "0.4 s", "12 s", "3 m 05 s", "2 h 07 m"."""
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} m"
