"""Read what is needed to stop or resume a run: its record, its source tree and credentials.

Imports ZenML only for a token that is in ZenML's secret store.
"""

from __future__ import annotations

import contextlib
from typing import Any

from modalrun.errors import NoRunError, NotFoundError, UsageError
from modalrun.run.metadata import PREFIX
from modalrun.run.records import App, DeploymentRecord
from modalrun.run.source import Source
from modalrun.zenml_api.errors import only_logged, translated
from modalrun.zenml_api.records import stores
from modalrun.zenml_api.records.queries import get_run, step_runs
from modalrun.zenml_api.records.responses import STOPPED, StoredRun
from modalrun.zenml_api.records.updates import publish_metadata


def unfinished_steps(run_id: str) -> tuple[str, ...]:
    """Return the names of the steps that ZenML records as unfinished.

    Raises:
        NotFoundError: There is no such run.
    """
    with translated():
        running = [step.name for step in step_runs(run_id) if not step.finished]
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
        return Source.from_metadata(run.values or {})
    except ValueError as error:
        raise UsageError(
            f"The run {run_id} can't be continued: {error}.",
            hint="ZenML's metadata of the run was damaged or changed. Submit the pipeline again.",
        ) from error


def deployment_id(run_id: str) -> str:
    """Return the id of the snapshot that a run runs.

    Raises:
        NotFoundError: There is no such run, or its snapshot was deleted.
    """
    return _deployed(run_id)[0]


def deployment_of(run_id: str) -> DeploymentRecord:
    """Return what identifies the snapshot that a run runs, and what it was compiled from.

    Raises:
        NotFoundError: There is no such run, or its snapshot was deleted.
    """
    found, run = _deployed(run_id)
    with translated():
        stored = stores.current().deployment(found, [])
    stack = run.stack.id if run.stack else None
    return DeploymentRecord(found, stack, stored.environment, stored.source)


def _deployed(run_id: str) -> tuple[str, StoredRun]:
    with translated():
        run = get_run(run_id)
    if run.deployment is None:
        raise NotFoundError(f"The deployment of the run {run_id} was deleted.")
    return run.deployment, run


def app_of(run_id: str) -> App | None:
    """Return the Modal app that a run's deployment names; None if the deployment was deleted.

    Raises:
        NotFoundError: There is no such run.
    """
    from modalrun.plan.deployment import merged_orchestrator_settings
    from modalrun.plan.planner import app_name
    from modalrun.zenml_api.component import component_defaults, component_values

    with translated():
        run, store = get_run(run_id), stores.current()
        if run.deployment is None:
            return None
        pipeline = store.deployment(run.deployment, []).pipeline
        settings: dict[str, Any] = {}
        # Neither a deleted stack nor a wrong value of its component keeps a run from being stopped.
        with contextlib.suppress(UsageError):
            if run.stack is not None:
                component = store.orchestrator(run.stack.id)
                settings |= component_defaults(component_values(component)).settings
        settings |= merged_orchestrator_settings(pipeline["settings"])
    name = settings.get("app_name") or app_name(pipeline["name"])
    return App(str(name), settings.get("modal_environment"))


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
    from modalrun.zenml_api.component import component_values, is_reference

    with translated():
        run = get_run(run_id)
        if run.deployment is None or run.stack is None:
            return None
        component = stores.current().orchestrator(run.stack.id)
        values = component_values(component)
        if values.token is None or not any(map(is_reference, values.token)):
            return values.token
        stores.open_zenml()
        from modalrun.zenml_api.orchestrator_config import credentials

        return credentials(values)


def stop_requested(run_id: str) -> bool:
    """Return whether ZenML records that a run is stopping or stopped.

    Raises:
        NotFoundError: There is no such run.
    """
    with translated():
        return get_run(run_id, hydrate=False).status in STOPPED


def deleted(run_id: str) -> bool:
    """Return whether ZenML has no such run, or no longer; False where it can't be asked."""
    with contextlib.suppress(Exception):
        try:
            get_run(run_id, hydrate=False)
        except NoRunError:
            return True
    return False


def starts_nothing(run_id: str) -> bool:
    """Return whether the run has failed, or a step of it and its execution mode starts no more.

    Raises:
        NotFoundError: There is no such run.
    """
    with translated():
        run = get_run(run_id)
        return run.starts_nothing or run.status == "failed"


def withdrawn(run_id: str) -> bool:
    """Return whether a run was stopped, or somebody has recorded its failure.

    A failure that comes from a step gives the run no reason.

    Raises:
        NotFoundError: There is no such run.
    """
    with translated():
        run = get_run(run_id, hydrate=False)
        return run.status in STOPPED or (run.status == "failed" and bool(run.reason))


def record_stop_request(run_id: str) -> None:
    """Record that a run's driver was asked to stop; a failure to do so is only logged.

    ZenML's own status for it, STOPPING, would interrupt the steps that run.
    """
    with only_logged("The request was not stored"):
        publish_metadata(run_id, {f"{PREFIX}stop_requested": True})
