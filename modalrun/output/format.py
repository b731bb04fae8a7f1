"""Format states and times. Pure."""

from __future__ import annotations

from datetime import datetime

from modalrun.util.timeformat import duration_of

STYLES = {
    "completed": "green",
    "cached": "cyan",
    "skipped": "cyan",
    "failed": "bold red",
    "lost": "bold red",
    "stopped": "yellow",
    "running": "blue",
    "starting": "blue",
    "retrying": "yellow",
    "not run": "dim",
    "waiting": "dim",
}
"""Rich's style of each state of a step or a run."""


def with_attempt(state: str, attempt: int) -> str:
    """Format a step's state: "failed", or "failed (try 2)" from the second attempt on."""
    return state if attempt == 1 else f"{state} (try {attempt})"


def resources(gpu: str | None, cpu: float | None, memory: int | None) -> str:
    """Format what a sandbox has: "T4, 2 cpu, 512 MiB"."""
    parts = [gpu, f"{cpu:g} cpu" if cpu else None, f"{memory} MiB" if memory else None]
    return ", ".join(part for part in parts if part)


def duration(start: datetime | float | None, end: datetime | float | None) -> str:
    """Format the time between two moments; empty if one of them is None.

    The time is in whole seconds if one of the moments is: a ZenML server on MariaDB or MySQL
    stores no fractions.
    """
    if start is None or end is None:
        return ""
    began, ended = (m.timestamp() if isinstance(m, datetime) else m for m in (start, end))
    return duration_of(ended - began, whole=began.is_integer() or ended.is_integer())
