"""What has to be known of a run to stop it, and how its end is recorded."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.orchestrators.publish_utils import publish_pipeline_run_metadata

from modalrun.run.metadata import PREFIX, Announced, RunMetadata, from_metadata, to_metadata
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.records.queries import get_run, step_runs
from modalrun.zenml_api.records.run_access import token_of


@dataclass(frozen=True)
class Stoppable:
    """A run that somebody wants to end.

    Attributes:
        id: ZenML's run id.
        name: Its name.
        status: ZenML's word for its state.
        finished: Whether that state is final.
        running: Steps that ZenML records as unfinished.
        metadata: Where its sandboxes are; None where modalrun has stored nothing (yet).
        announced: Where they will be, once that is known.
        credentials: The Modal token of its stack's orchestrator, if it has one. Never printed.
    """

    id: str
    name: str
    status: str
    finished: bool
    running: tuple[str, ...]
    metadata: RunMetadata | None
    announced: Announced | None
    credentials: tuple[str, str] | None = field(default=None, repr=False)


def look(run_id: str) -> Stoppable:
    """A run as it stands now.

    Raises:
        NotFoundError: There is no such run.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        run = get_run(Client(), run_id)
        running = [
            s.name
            for s in step_runs(Client(), pipeline_run_id=UUID(run_id))
            if not s.status.is_finished
        ]
        metadata = from_metadata(RunMetadata, run.run_metadata)
        announced = from_metadata(Announced, run.run_metadata)
        target = announced.target if announced is not None else "local"
        return Stoppable(
            id=str(run.id),
            name=run.name,
            status=run.status.value,
            finished=run.status.is_finished,
            running=tuple(dict.fromkeys(running)),
            metadata=metadata,
            announced=announced,
            credentials=token_of(run, target),
        )


def is_wanted(run_id: str) -> bool:
    """Whether somebody wants the run to end, or has ended it.

    Raises:
        NotFoundError: There is no such run.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        status = get_run(Client(), run_id).status
    return status in {ExecutionStatus.STOPPING, ExecutionStatus.STOPPED}


def note_request(run_id: str) -> None:
    """Store that a run's driver was asked to stop; a failure to do so is only logged.

    ZenML's own word for it, STOPPING, would interrupt the steps that run.
    """
    try:
        orchestrator_id = Client().active_stack.orchestrator.id
        noted: dict[str, Any] = {f"{PREFIX}stop_requested": True}
        publish_pipeline_run_metadata(UUID(run_id), {orchestrator_id: noted})
    except Exception:
        logging.getLogger(__name__).warning("The request was not stored.", exc_info=True)


def announce(run_id: str, announced: Announced) -> None:
    """Store where a run's sandbox will be, or that it is given up.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        orchestrator_id = Client().active_stack.orchestrator.id
        publish_pipeline_run_metadata(UUID(run_id), {orchestrator_id: to_metadata(announced)})
