"""Decide which steps of an earlier run a rerun takes, and which it runs. Pure.

ZenML calls a rerun a replay, and a step whose result is taken *skipped*.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from modalrun.errors import NotFoundError
from modalrun.run.records import StepRecord
from modalrun.util.nearest import did_you_mean
from modalrun.util.text import listing

TAG = "modalrun-rerun-"
"""Begins the tag that a run and its reruns have in ZenML; the first run's id ends it."""

_SHOWN = 10
"""Steps that a line names."""


@dataclass(frozen=True)
class Rerun:
    """Hold what a rerun takes from an earlier run.

    Attributes:
        run_id: ZenML's id of the earlier run.
        tag: The tag that both runs have.
        skipped: The steps whose results are taken, parents first.
        runs: Every other known step, with why it runs.
        dynamic: Whether the pipeline's function may add steps.
    """

    run_id: str
    name: str
    tag: str
    skipped: tuple[str, ...]
    runs: Mapping[str, str]
    dynamic: bool = False

    @property
    def lines(self) -> tuple[str, ...]:
        """Lines that tell the user what is taken and what runs."""
        count = f" ({len(self.skipped)} with the results of that run)"
        skipped = f"{listing(self.skipped, _SHOWN)}{count}" if self.skipped else "no step"
        runs = listing([f"{name} ({why})" for name, why in self.runs.items()], _SHOWN)
        if self.dynamic:
            also = "what else the pipeline's function calls"
            runs = f"{runs}, and {also}" if runs else also
        return (
            f"Rerun of {self.name} ({self.run_id})",
            f"  skipped  {skipped}",
            f"  runs     {runs}",
        )


@dataclass(frozen=True)
class Earlier:
    """Hold what is known of a step of the earlier run, or of a new one.

    Attributes:
        upstream: The steps that it waits for, parents first.
        record: Its last attempt in the earlier run; None if it has none.
        changed: Why its result no longer holds ("its code has changed"); None if it does.
    """

    upstream: Collection[str] = ()
    record: StepRecord | None = None
    changed: str | None = None


def decide(
    steps: Mapping[str, Earlier], begin: Collection[str] = (), *, dynamic: bool = False
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Decide which steps are taken, and which run.

    Of a dynamic pipeline, what its function does between steps is not known: a step that began
    after one had ended may depend on it.

    Args:
        steps: All steps, parents before children.
        begin: The steps to begin with, although they have succeeded.

    Returns:
        The names of those that are taken, and why each of the others runs.

    Raises:
        NotFoundError: There is no step of a name in `begin`.
    """
    for name in begin:
        if name not in steps:
            known = f"Its steps: {listing(list(steps), _SHOWN)}." if steps else "It has no steps."
            raise NotFoundError(
                f"--from {name}: the run has no step '{name}'.",
                hint=did_you_mean(name, steps, known),
            )
    runs: dict[str, str] = {}
    for name, step in steps.items():
        after = [one for one in runs if one in step.upstream]
        if dynamic:
            after += [one for one in runs if _may_follow(step.record, steps[one].record)]
        why = "--from" if name in begin else _own_reason(step)
        if why is None and after:
            why = f"after {after[0]}"
        if why is not None:
            runs[name] = why
    return tuple(name for name in steps if name not in runs), runs


def _own_reason(step: Earlier) -> str | None:
    """Return why a step runs whatever the others do."""
    if step.record is None:
        return "not run before"
    return step.changed if step.record.successful else step.record.status


def _may_follow(record: StepRecord | None, other: StepRecord | None) -> bool:
    """Return whether a step began after another one had ended."""
    if record is None or other is None or record.start is None or other.end is None:
        return False
    return record.start >= other.end
