"""Read the records of a run's steps, and record their ends.

Imports ZenML only to record the failure of a step without a record.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from modalrun.run import usage_log
from modalrun.run.failure import with_lines
from modalrun.run.metadata import TRIES_KEY, StepMetadata, to_metadata
from modalrun.run.records import StepRecord
from modalrun.run.usage import StepUsage, usage_to_metadata
from modalrun.zenml_api.errors import NotAllowedError, only_logged, translated
from modalrun.zenml_api.records import stores
from modalrun.zenml_api.records.queries import UNDECODABLE, get_run, step_runs
from modalrun.zenml_api.records.responses import encoded_time


def step_states(run_id: str) -> dict[str, StepRecord]:
    """Return the last record of each step of a run, with its reason and metadata."""
    with translated():
        return {step.name: step for step in step_runs(run_id, hydrate=True)}


def step_state(run_id: str, step: str, *, detailed: bool = False) -> StepRecord | None:
    """Return the last record of a step; None if there is none.

    Args:
        detailed: Whether to read reason and metadata too.
    """
    with translated():
        found = step_runs(run_id, name=f"equals:{step}", hydrate=detailed)
        return found[-1] if found else None


def fail_step(
    run_id: str,
    step: str,
    reason: str,
    *,
    attempt: int = 1,
    final: bool = False,
    lines: Sequence[str] = (),
    ended: float | None = None,
) -> StepRecord | None:
    """Record that a step has failed; create a record if there is none.

    A finished record is not changed. While the step has retries left, ZenML records a failure as
    "retrying" (`sql_zen_store.py:13129`, 0.98.0), and the next attempt gets a record of its own.

    Args:
        reason: The reason, in a sentence; stored with the record.
        attempt: Which attempt it is, from 1. Its process may have died before it made a record.
        ended: When it has ended (seconds since 1970); None for now.
        final: Whether no attempt follows. The remaining retries then get failed records too: ZenML
            has no other final status that leaves the rest of the run alone. The last one says so.

    Returns:
        The record afterwards, with the reason of an earlier failure; None if ZenML creates none
        any more, because the run is over.
    """
    info = _exception(reason, lines)
    with translated():
        state = step_state(run_id, step, detailed=True)
        honour_stop_request(run_id)
        try:
            retrying = state is not None and state.status == "retrying"
            if state is None or (retrying and state.attempt < attempt):
                state = _create_failed(run_id, step, info)
            elif not state.finished and state.status != "retrying":
                state = end_step(state.id, "failed", reason, lines, ended=ended)
            while final and state.status == "retrying":
                state = _create_failed(run_id, step, info)
            if final and state.attempt > attempt:
                with only_logged("The number of the step's attempts was not stored"):
                    stores.current().add_metadata("step_run", state.id, {TRIES_KEY: attempt})
        except NotAllowedError:
            # The step was recorded meanwhile, or the run is over.
            return step_state(run_id, step)
        return state


def honour_stop_request(run_id: str) -> None:
    """Let a run that was asked to stop end as stopped although a step is about to fail.

    ZenML sets a run to failed with its first failed step, for good, unless it is stopping before.
    """
    with contextlib.suppress(NotAllowedError):
        run = get_run(run_id)
        if run.metadata is not None and run.metadata.stop_requested and not run.finished:
            stores.current().update_run(run_id, status="stopping")


def stop_step(run_id: str, step: str, reason: str) -> StepRecord | None:
    """Record that a running step was stopped; a finished record is not changed.

    A step that waits for its retry keeps the reason of its failure.

    Only for a run that is stopping, has failed or is dynamic: ZenML sets any other run to stopping
    (`pipeline_run_schemas.py:1320`, 0.98.0).
    """
    with translated():
        state = step_state(run_id, step)
        if state is None or state.finished:
            return state
        try:
            return end_step(state.id, "stopped", None if state.status == "retrying" else reason)
        except NotAllowedError:
            return step_state(run_id, step)


def end_step(
    step_run_id: str,
    status: str,
    reason: str | None,
    lines: Sequence[str] = (),
    *,
    used: Sequence[str] = (),
    ended: float | None = None,
) -> StepRecord:
    """Record the end of a step, the reason, and the last lines before it; return the record.

    If its process has died in this sandbox, or with one that has told it, what it has used is
    stored too.

    Args:
        reason: None to keep the recorded one, and its lines.
        ended: When it has ended (seconds since 1970); None for now.

    Raises:
        NotAllowedError: ZenML takes no such status any more.
    """
    store = stores.current()
    dead = usage_log.of_dead(step_run_id, os.environ)
    if (usage := dead or usage_log.of_killed(step_run_id, used)) is not None:
        record_metadata(step_run_id, usage)
    try:
        state = store.update_step(
            step_run_id,
            status=status,
            end_time=encoded_time(ended),
            # ZenML leaves out what is None.
            exception_info=None if reason is None else _exception(reason, lines),
        )
    except UNDECODABLE:
        # It is stored, but ZenML can't decode metadata to return.
        state = store.step(step_run_id, hydrate=False)
        if state.status != status:
            raise
    return state


def _exception(reason: str, lines: Sequence[str]) -> dict[str, str]:
    return {"traceback": with_lines(reason, lines), "message": reason}


def _create_failed(run_id: str, step: str, info: dict[str, str]) -> StepRecord:
    from modalrun.zenml_api.records.zenml_store import create_failed_step

    return create_failed_step(run_id, step, info)


def record_metadata(step_run_id: str, metadata: StepMetadata | StepUsage) -> None:
    """Store metadata of a step's sandbox, or its usage; a failure to do so is only logged.

    Args:
        metadata: Fields that are None stay as they are stored.
    """
    with only_logged("The step's metadata was not stored"):
        encode: Any = usage_to_metadata if isinstance(metadata, StepUsage) else to_metadata
        values = encode(metadata)
        # Whoever records the step's end notices that the run was deleted.
        with contextlib.suppress(KeyError):
            stores.current().add_metadata("step_run", step_run_id, values)
