"""Read what is needed to stop or resume a run: its record, its source tree and credentials."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from modalrun.errors import NotFoundError, UsageError
from modalrun.plan.deployment import merged_orchestrator_settings
from modalrun.plan.planner import app_name
from modalrun.run.metadata import PREFIX
from modalrun.run.records import App
from modalrun.run.source import Source
from modalrun.zenml_api.errors import first_line, translated
from modalrun.zenml_api.orchestrator_config import (
    component_config,
    component_defaults,
    credentials,
)
from modalrun.zenml_api.records.queries import STOPPED, get_run, step_runs
from modalrun.zenml_api.records.runs import environment, publish_metadata
from modalrun.zenml_api.stacks import load_stack, orchestrator_of


def unfinished_steps(run_id: str) -> tuple[str, ...]:
    """Return the names of the steps that ZenML records as unfinished.

    Raises:
        NotFoundError: There is no such run.
    """
    with translated():
        running = [step.name for step in step_runs(run_id) if not step.status.is_finished]
        return tuple(dict.fromkeys(running))


def read_source(run_id: str) -> Source | None:
    """Read the record of the source tree that a run was submitted with; None where there is none.

    Raises:
        NotFoundError: There is no such run.
        UsageError: The record can't be read.
    """
    with translated():
        run = get_run(run_id)
    try:
        return Source.from_metadata(run.run_metadata)
    except ValueError as error:
        raise UsageError(
            f"The run {run_id} can't be resumed: {error}.",
            hint="ZenML's metadata of the run was damaged or changed. Submit the pipeline again.",
        ) from error


def deployment_id(run_id: str) -> str:
    """Return the id of the snapshot that a run runs.

    Raises:
        NotFoundError: There is no such run, or its snapshot was deleted.
    """
    with translated():
        run = get_run(run_id)
    if run.snapshot is None:
        raise NotFoundError(f"The deployment of the run {run_id} was deleted.")
    return str(run.snapshot.id)


def app_of(run_id: str) -> App | None:
    """Return the Modal app that a run's deployment names; None if the deployment was deleted.

    Raises:
        NotFoundError: There is no such run.
    """
    with translated():
        run = get_run(run_id)
        if run.snapshot is None:
            return None
        pipeline = run.snapshot.pipeline_configuration
        settings: dict[str, Any] = {}
        # Neither a deleted stack nor a wrong value of its component keeps a run from being stopped.
        with contextlib.suppress(UsageError):
            if run.snapshot.stack is not None:
                component = component_config(orchestrator_of(run.snapshot.stack))
                settings |= component_defaults(component).settings
        settings |= merged_orchestrator_settings(pipeline.model_dump(mode="json")["settings"])
    name = settings.get("app_name") or app_name(pipeline.name)
    return App(str(name), settings.get("modal_environment"))


def driver_environment(run_id: str) -> dict[str, str]:
    """Return the variables with which a driver uses ZenML. They hold its credentials.

    Raises:
        NotFoundError: There is no such run.
        UsageError: Its deployment or its stack was deleted.
    """
    with translated():
        run = get_run(run_id)
        if run.snapshot is None or run.snapshot.stack is None:
            raise UsageError(f"The deployment or the stack of the run {run_id} was deleted.")
        stack = load_stack(run.snapshot.stack)
        return environment(run.id, stack, str(run.orchestrator_run_id))


def credentials_of(run_id: str, target: str) -> tuple[str, str] | None:
    """Read the Modal token of a run's orchestrator component.

    Args:
        target: The run's target; the local Modal server has a token of its own.

    Returns:
        The token's id and secret; None if Modal's own configuration is to be used.

    Raises:
        NotFoundError: There is no such run, or ZenML's secret store has no such secret.
        UsageError: The component's values are wrong.
    """
    if target != "modal":
        return None
    with translated():
        run = get_run(run_id)
        stack = run.snapshot.stack if run.snapshot else None
        return None if stack is None else credentials(component_config(orchestrator_of(stack)))


def stop_requested(run_id: str) -> bool:
    """Return whether ZenML records that a run is stopping or stopped.

    Raises:
        NotFoundError: There is no such run.
    """
    with translated():
        return get_run(run_id, hydrate=False).status in STOPPED


def record_stop_request(run_id: str) -> None:
    """Record that a run's driver was asked to stop; a failure to do so is only logged.

    ZenML's own status for it, STOPPING, would interrupt the steps that run.
    """
    try:
        publish_metadata(run_id, {f"{PREFIX}stop_requested": True})
    except Exception as error:
        logging.getLogger(__name__).warning("The request was not stored: %s", first_line(error))
