"""The records of a run's steps: read, settled and, for steps that were never run, made."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.exceptions import EntityExistsError, IllegalOperationError
from zenml.models import ExceptionInfo, StepRunRequest, StepRunUpdate
from zenml.orchestrators.publish_utils import publish_step_run_metadata
from zenml.utils.time_utils import utc_now

from modalrun.run.metadata import StepMetadata, to_metadata
from modalrun.run.records import StepRecord
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.records.queries import step_record, step_runs


def step_states(run_id: str, *, detailed: bool = False) -> dict[str, StepRecord]:
    """The last record of each step of a run; steps that have none are left out.

    Args:
        run_id: ZenML's run id.
        detailed: Whether to read reason and metadata too, which costs a query more per page.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        found = step_runs(run_id, hydrate=detailed)
        return {step.name: step_record(step, detailed=detailed) for step in found}


def step_state(run_id: str, step: str) -> StepRecord | None:
    """The last record of one step; None where there is none.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        found = step_runs(run_id, name=f"equals:{step}")
        return step_record(found[-1]) if found else None


def fail_step(run_id: str, step: str, reason: str, *, final: bool = False) -> StepRecord | None:
    """Record that a step has failed, and why; a record is made where there is none.

    What is finished stays as it is: ZenML's record always wins. While the user's retries last ZenML
    makes "retrying" of a failure (`sql_zen_store.py:13129`, 0.98.0), and the next try gets a record
    of its own.

    Args:
        run_id: ZenML's run id.
        step: The step's invocation id.
        reason: What happened, in a sentence; stored with the record.
        final: Nobody will try again: the tries that are left get failed records as well, since
            ZenML knows no other way to say so that leaves the rest of the run alone.

    Returns:
        The record as it is then; None where ZenML takes none any more, because the run is over.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        state = step_state(run_id, step)
        try:
            if state is None:
                state = _create_failed(run_id, step, reason)
            elif not state.finished and state.status != ExecutionStatus.RETRYING.value:
                state = _end(state.id, ExecutionStatus.FAILED, reason)
            while final and state.status == ExecutionStatus.RETRYING.value:
                state = _create_failed(run_id, step, reason)
        except (EntityExistsError, IllegalOperationError):
            # Somebody else was quicker, or the run is over.
            return step_state(run_id, step)
        return state


def stop_step(run_id: str, step: str, reason: str) -> StepRecord | None:
    """Record that a step was ended before its end; what is finished stays as it is.

    To be used on a run that is stopping or has failed: of any other run ZenML makes one that is
    stopping (`pipeline_run_schemas.py:1320`, 0.98.0).

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        state = step_state(run_id, step)
        if state is None or state.finished:
            return state
        try:
            return _end(state.id, ExecutionStatus.STOPPED, reason)
        except IllegalOperationError:
            return step_state(run_id, step)


def _end(step_run_id: str, status: ExecutionStatus, reason: str) -> StepRecord:
    return step_record(
        Client().zen_store.update_run_step(
            UUID(step_run_id),
            StepRunUpdate(
                status=status, end_time=utc_now(), exception_info=ExceptionInfo(traceback=reason)
            ),
        )
    )


def _create_failed(run_id: str, step: str, reason: str) -> StepRecord:
    now, client = utc_now(), Client()
    return step_record(
        client.zen_store.create_run_step(
            StepRunRequest(
                name=step,
                pipeline_run_id=UUID(run_id),
                project=client.active_project.id,
                status=ExecutionStatus.FAILED,
                start_time=now,
                end_time=now,
                exception_info=ExceptionInfo(traceback=reason),
            )
        )
    )


def seconds_of_steps(run_id: str) -> dict[str, float]:
    """How long each step of a run took that was completed in it, and not cached."""
    with translated():
        return {
            record.name: (record.end_time - record.start_time).total_seconds()
            for record in step_runs(run_id, status="completed")
            if record.start_time is not None and record.end_time is not None
        }


def record_metadata(step_run_id: str, metadata: StepMetadata) -> None:
    """Store what is known of a step's sandbox with a record; a failure to do so is only logged."""
    try:
        orchestrator_id = Client().active_stack.orchestrator.id
        stored: dict[str, Any] = to_metadata(metadata)
        publish_step_run_metadata(UUID(step_run_id), {orchestrator_id: stored})
    except Exception:
        logging.getLogger(__name__).warning("The step's metadata was not stored.", exc_info=True)
