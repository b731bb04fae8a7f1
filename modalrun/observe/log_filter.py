"""Explain why requested steps have no log lines. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from modalrun.errors import NotFoundError
from modalrun.run.records import NOT_RUN, StepRecord
from modalrun.util.nearest import nearest

_SHOWN = 20
"""Steps that a message names at most."""


def matches_any(pattern: str, steps: Collection[str]) -> bool:
    """Return whether a name or pattern matches one of some steps."""
    return any(fnmatchcase(step, pattern) for step in steps)


def unknown_steps(patterns: Sequence[str], steps: Sequence[str]) -> NotFoundError | None:
    """Return the error for names and patterns that match no step; None if each matches one."""
    wrong = [pattern for pattern in patterns if not matches_any(pattern, steps)]
    if not wrong:
        return None
    quoted = " or ".join(repr(pattern) for pattern in wrong)
    close = [near for name in wrong if (near := nearest(name, steps)) is not None]
    guess = f"Did you mean {' and '.join(repr(near) for near in close)}? " if close else ""
    more = f" and {len(steps) - _SHOWN} more" if len(steps) > _SHOWN else ""
    known = ", ".join(steps[:_SHOWN]) + more if steps else "none so far"
    return NotFoundError(f"The run has no step named {quoted}.", hint=f"{guess}Its steps: {known}.")


def silent_steps(
    patterns: Sequence[str], steps: Sequence[StepRecord], not_run: Mapping[str, str], *, over: bool
) -> NotFoundError:
    """Return the error for names and patterns that match only steps without lines.

    Args:
        patterns: As they were given; each matches at least one of the steps.
        not_run: Why steps are not run, by step; sentences.
        over: Whether the run is over.
    """
    silent = [step for step in steps if any(fnmatchcase(step.name, name) for name in patterns)]
    lines = [_why_silent(step, not_run.get(step.name, ""), over=over) for step in silent[:_SHOWN]]
    if len(silent) > _SHOWN:
        lines.append(f"and {len(silent) - _SHOWN} more without lines")
    return NotFoundError("\n".join(lines))


def _why_silent(step: StepRecord, not_run: str, *, over: bool) -> str:
    name = f"Step '{step.name}'"
    if step.status == "cached":
        return f"{name} has not run in this run: its result comes from ZenML's cache."
    if step.status == "skipped":
        return f"{name} has not run in this run: its result is that of an earlier run."
    if step.status == NOT_RUN:
        reason = not_run.partition(": ")[2]
        if reason:
            return f"{name} has not run: {reason}"
        return f"{name} has not run: the run ended before." if over else f"{name} has not run yet."
    so_far = "" if step.finished or step.end is not None else " so far"
    return f"{name} ({step.status}) has printed nothing{so_far}."
