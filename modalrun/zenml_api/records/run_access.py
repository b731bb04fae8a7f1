"""Read what is needed to stop or resume a run: its record, its manifest and its credentials."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse

from modalrun.errors import UsageError
from modalrun.run import manifest as manifests
from modalrun.run.manifest import RunManifest
from modalrun.run.metadata import PREFIX, Announced, RunMetadata, from_metadata
from modalrun.zenml_api.compiling.code_settings import component_config, credentials
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.records.queries import get_run, run_url, step_runs
from modalrun.zenml_api.records.runs import environment, publish_metadata
from modalrun.zenml_api.stacks import load_stack, orchestrator_of


@dataclass(frozen=True)
class StoppableRun:
    """A run as far as it must be known to stop it.

    Attributes:
        id: ZenML's run id.
        name: Its name.
        status: ZenML's status of it.
        finished: Whether that status is final.
        running: Steps that ZenML records as unfinished.
        metadata: Where its sandboxes are; None if modalrun has stored nothing (yet).
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


@dataclass(frozen=True)
class ResumableRun:
    """A run as far as another driver must know it to resume it.

    Attributes:
        id: ZenML's run id.
        name: Its name.
        url: Its page on ZenML's dashboard, if there is one.
        status: ZenML's status of it.
        finished: Whether that status is final.
        metadata: The metadata of its run sandbox, if it has got one.
        order: The driver's manifest; None for a run without a driver.
        environment: Variables for the driver. They hold ZenML's credentials.
        credentials: The Modal token of the stack's orchestrator. Never printed.
    """

    id: str
    name: str
    url: str | None
    status: str
    finished: bool
    metadata: RunMetadata | None
    order: RunManifest | None
    environment: Mapping[str, str] = field(repr=False)
    credentials: tuple[str, str] | None = field(repr=False)


def read_stoppable(run_id: str) -> StoppableRun:
    """Read what is needed to stop a run.

    Raises:
        NotFoundError: There is no such run.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        run = get_run(run_id)
        running = [s.name for s in step_runs(run_id) if not s.status.is_finished]
        announced = from_metadata(Announced, run.run_metadata)
        return StoppableRun(
            id=str(run.id),
            name=run.name,
            status=run.status.value,
            finished=run.status.is_finished,
            running=tuple(dict.fromkeys(running)),
            metadata=from_metadata(RunMetadata, run.run_metadata),
            announced=announced,
            credentials=_token(run, announced.target if announced is not None else "local"),
        )


def read_resumable(run_id: str) -> ResumableRun:
    """Read what another driver needs to resume a run.

    Raises:
        NotFoundError: There is no such run.
        UsageError: It has lost its stack, or its manifest can't be read.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        run = get_run(run_id)
        if run.snapshot is None or run.snapshot.stack is None:
            raise UsageError(f"The run {run_id} has lost its deployment or its stack.")
        try:
            manifest = manifests.from_metadata(run.run_metadata)
        except ValueError as error:
            raise UsageError(
                f"The run {run_id} can't be resumed by this modalrun: {error}.",
                hint="Use the modalrun that submitted it.",
            ) from error
        variables: dict[str, str] = {}
        token = None
        if manifest is not None and not run.status.is_finished:
            stack = load_stack(run.snapshot.stack)
            variables = environment(run.id, stack, str(run.orchestrator_run_id))
            token = _token(run, manifest.target)
        return ResumableRun(
            id=str(run.id),
            name=run.name,
            url=run_url(run),
            status=run.status.value,
            finished=run.status.is_finished,
            metadata=from_metadata(RunMetadata, run.run_metadata),
            order=manifest,
            environment=variables,
            credentials=token,
        )


def credentials_of(run_id: str, target: str) -> tuple[str, str] | None:
    """Read the Modal token of a run's orchestrator component.

    Args:
        run_id: ZenML's run id.
        target: The run's target; the local Modal server has a token of its own.

    Returns:
        The token's id and secret; None if Modal's own configuration is to be used.

    Raises:
        NotFoundError: There is no such run.
        UsageError: The component's values are wrong, or ZenML's secret store has no such secret.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    if target != "modal":
        return None
    with translated():
        return _token(get_run(run_id), target)


def stop_requested(run_id: str) -> bool:
    """Return whether ZenML records that a run is stopping or stopped.

    Raises:
        NotFoundError: There is no such run.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        return get_run(run_id).status in {ExecutionStatus.STOPPING, ExecutionStatus.STOPPED}


def record_stop_request(run_id: str) -> None:
    """Record that a run's driver was asked to stop; a failure to do so is only logged.

    ZenML's own status for it, STOPPING, would interrupt the steps that run.
    """
    try:
        publish_metadata(run_id, {f"{PREFIX}stop_requested": True})
    except Exception:
        logging.getLogger(__name__).warning("The request was not stored.", exc_info=True)


def _token(run: PipelineRunResponse, target: str) -> tuple[str, str] | None:
    stack = run.snapshot.stack if run.snapshot else None
    if target != "modal" or stack is None:
        return None
    return credentials(component_config(orchestrator_of(stack)))
