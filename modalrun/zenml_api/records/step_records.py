"""The records of a run's steps: read, settled and, for steps that were never run, made."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.exceptions import EntityExistsError, IllegalOperationError
from zenml.models import ExceptionInfo, StepRunRequest, StepRunResponse, StepRunUpdate
from zenml.orchestrators.publish_utils import publish_step_run_metadata
from zenml.utils.time_utils import utc_now

from modalrun.run.metadata import StepMetadata, from_metadata, to_metadata
from modalrun.zenml_api.errors import translated

PAGE = 1000
"""How many records are asked for at once; ZenML's default of 20 makes many requests of a run."""


@dataclass(frozen=True)
class StepState:
    """The last record of a step.

    Attributes:
        id: ZenML's step run id.
        status: ZenML's word: "running", "completed", "cached", "failed", "retrying", ...
        attempt: Which try it is, from 1; retries for infrastructure don't count.
        successful: Whether the step is done.
        finished: Whether the state is final. "retrying" is not: another try is awaited.
        began: When it began, in seconds since the epoch, where that is recorded.
        ended: The same, of its end.
        facts: Of its sandbox, where they are stored and were asked for.
    """

    id: str
    status: str
    attempt: int
    successful: bool
    finished: bool
    began: float | None = None
    ended: float | None = None
    facts: StepMetadata | None = None


def step_states(run_id: str, *, detailed: bool = False) -> dict[str, StepState]:
    """The last record of each step of a run; steps that have none are left out.

    Args:
        run_id: ZenML's run id.
        detailed: Whether to ask for facts too, which costs a query more per page.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        records = _records(pipeline_run_id=UUID(run_id), hydrate=detailed)
        return _last(records, detailed=detailed)


def step_state(run_id: str, step: str) -> StepState | None:
    """The last record of one step; None where there is none.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        return _last(_records(pipeline_run_id=UUID(run_id), name=f"equals:{step}")).get(step)


def fail_step(run_id: str, step: str, reason: str, *, final: bool = False) -> StepState | None:
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


def stop_step(run_id: str, step: str, reason: str) -> StepState | None:
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


def _end(step_run_id: str, status: ExecutionStatus, reason: str) -> StepState:
    return _state(
        Client().zen_store.update_run_step(
            UUID(step_run_id),
            StepRunUpdate(
                status=status, end_time=utc_now(), exception_info=ExceptionInfo(traceback=reason)
            ),
        )
    )


def _create_failed(run_id: str, step: str, reason: str) -> StepState:
    now, client = utc_now(), Client()
    return _state(
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
            for record in _records(pipeline_run_id=UUID(run_id), status="completed")
            if record.start_time is not None and record.end_time is not None
        }


def record_facts(step_run_id: str, facts: StepMetadata) -> None:
    """Store facts about a step's sandbox with a record; a failure to do so is only logged."""
    try:
        orchestrator_id = Client().active_stack.orchestrator.id
        metadata: dict[str, Any] = to_metadata(facts)
        publish_step_run_metadata(UUID(step_run_id), {orchestrator_id: metadata})
    except Exception:
        logging.getLogger(__name__).warning("The step's metadata was not stored.", exc_info=True)


def _records(**filters: Any) -> list[StepRunResponse]:
    client = Client()
    found: list[StepRunResponse] = []
    page = 1
    while True:
        answer = client.list_run_steps(
            project=client.active_project.id, size=PAGE, page=page, **filters
        )
        found += answer.items
        if page >= answer.total_pages:
            return found
        page += 1


def _last(records: list[StepRunResponse], *, detailed: bool = False) -> dict[str, StepState]:
    found: dict[str, StepRunResponse] = {}
    for record in records:
        if record.name not in found or found[record.name].version < record.version:
            found[record.name] = record
    return {name: _state(record, detailed=detailed) for name, record in found.items()}


def _state(record: StepRunResponse, *, detailed: bool = False) -> StepState:
    return StepState(
        id=str(record.id),
        status=record.status.value,
        attempt=record.version,
        successful=record.status.is_successful,
        finished=record.status.is_finished,
        began=_seconds(record.start_time),
        ended=_seconds(record.end_time),
        facts=from_metadata(StepMetadata, record.run_metadata) if detailed else None,
    )


def _seconds(moment: datetime | None) -> float | None:
    """ZenML's times are UTC without saying so."""
    return None if moment is None else moment.replace(tzinfo=timezone.utc).timestamp()
