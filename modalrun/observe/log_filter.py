"""Steps whose lines were asked for, and that have none: what is said of them. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from modalrun.errors import NotFoundError
from modalrun.run.records import StepRecord

_SHOWN = 20
"""Steps that are named at most."""


def matched(name: str, steps: Collection[str]) -> bool:
    """Whether a name or pattern means one of some steps."""
    return any(fnmatchcase(step, name) for step in steps)


def unknown(names: Sequence[str], steps: Sequence[str]) -> NotFoundError | None:
    """The error for names and patterns that mean no step; None where each means one.

    Args:
        names: As they were given.
        steps: The names of all steps of the run.
    """
    wrong = [name for name in names if not matched(name, steps)]
    if not wrong:
        return None
    quoted = " or ".join(repr(name) for name in wrong)
    close = [near for name in wrong for near in difflib.get_close_matches(name, steps, n=1)]
    guess = f"Did you mean {' and '.join(repr(near) for near in close)}? " if close else ""
    return NotFoundError(
        f"The run has no step named {quoted}.", hint=f"{guess}Its steps: {_listed(steps)}."
    )


def silent(
    names: Sequence[str],
    steps: Sequence[StepRecord],
    told: Mapping[str, str],
    *,
    over: bool,
) -> NotFoundError:
    """The error for names and patterns that mean only steps without lines.

    Args:
        names: As they were given; each means at least one of the steps.
        steps: All steps of the run.
        told: Why a step is not run, where the run has said so; sentences.
        over: Whether the run is over.
    """
    meant = [step for step in steps if any(fnmatchcase(step.name, name) for name in names)]
    lines = [_why(step, told.get(step.name), over=over) for step in meant[:_SHOWN]]
    if len(meant) > _SHOWN:
        lines.append(f"and {len(meant) - _SHOWN} more without lines")
    return NotFoundError("\n".join(lines))


def _why(step: StepRecord, told: str | None, *, over: bool) -> str:
    name = f"Step '{step.name}'"
    if step.status == "cached":
        return f"{name} has not run in this run: its result comes from ZenML's cache."
    if step.status == "skipped":
        return f"{name} has not run: ZenML has skipped it."
    if step.status == "not run":
        reason = (told or "").partition(": ")[2]
        if reason:
            return f"{name} has not run: {reason}"
        return f"{name} has not run: the run ended before." if over else f"{name} has not run yet."
    so_far = "" if step.end is not None else " so far"
    return f"Step '{step.name}' ({step.status}) has printed nothing{so_far}."


def _listed(steps: Sequence[str]) -> str:
    more = f" and {len(steps) - _SHOWN} more" if len(steps) > _SHOWN else ""
    return ", ".join(steps[:_SHOWN]) + more if steps else "none so far"
