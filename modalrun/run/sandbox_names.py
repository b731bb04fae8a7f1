"""List the names of the sandboxes that the unfinished steps of a run can have. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from modalrun.run.records import StepRecord
from modalrun.run.tags import step_sandbox_name


def sandbox_names(run_id: str, steps: Iterable[StepRecord]) -> list[str]:
    """Return the names that the running sandboxes of a run's unfinished steps can have.

    A sandbox may be newer than its step's record: Modal's list of sandboxes may be older than both.
    """
    return [
        step_sandbox_name(run_id, step.name, number, dynamic)
        for step in steps
        if not step.finished
        # Of a dynamic pipeline, steps are known by their records alone.
        for dynamic in ((None, run_id) if step.id else (None,))
        for number in (step.sandboxes, step.sandboxes + 1)
    ]
