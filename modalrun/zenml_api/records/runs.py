"""Run and step records in ZenML: create, read, settle."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from zenml.client import Client
from zenml.config.global_config import GlobalConfiguration
from zenml.constants import (
    ENV_ZENML_ACTIVE_STACK_ID,
    ENV_ZENML_DISABLE_DATABASE_MIGRATION,
    ENV_ZENML_LOCAL_STORES_PATH,
    METADATA_ORCHESTRATOR_URL,
)
from zenml.enums import ExecutionStatus, StoreType
from zenml.exceptions import EntityExistsError, IllegalOperationError
from zenml.metadata.metadata_types import Uri
from zenml.models import (
    ExceptionInfo,
    PipelineRequest,
    PipelineResponse,
    PipelineRunResponse,
    PipelineRunUpdate,
    PipelineSnapshotRequest,
    StepRunUpdate,
)
from zenml.orchestrators.publish_utils import publish_pipeline_run_metadata
from zenml.orchestrators.utils import get_config_environment_vars
from zenml.pipelines.run_utils import create_placeholder_run
from zenml.stack import Stack
from zenml.utils import pagination_utils
from zenml.utils.time_utils import utc_now

from modalrun.errors import UsageError
from modalrun.run.metadata import PREFIX
from modalrun.run.records import CreatedRun
from modalrun.zenml_api.compiling.compile import Compiled
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.orchestrator import ORCHESTRATOR_RUN_ID
from modalrun.zenml_api.records.cache import Cache
from modalrun.zenml_api.records.queries import get_run, run_url, step_runs


def create_run(compiled: Compiled) -> CreatedRun:
    """Store the deployment and the placeholder run, so that the run id exists before any sandbox.

    What ZenML's cache has of its steps is recorded at once.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
        UsageError: A run of this name exists.
    """
    with translated():
        client = Client()
        if compiled.stored_id is not None:
            stored = client.zen_store.get_snapshot(compiled.stored_id)
        else:
            stored = client.zen_store.create_snapshot(
                PipelineSnapshotRequest(
                    project=client.active_project.id,
                    stack=compiled.stack.id,
                    pipeline=_register_pipeline(client, compiled.deployment.pipeline).id,
                    source_code=compiled.source_code,
                    **compiled.snapshot.model_dump(),
                )
            )
        # Without an id of its own a run could be adopted by the steps of another one
        # (`sql_zen_store.py:7246`).
        orchestrator_run_id = str(uuid4())
        try:
            run = create_placeholder_run(stored, orchestrator_run_id=orchestrator_run_id)
        except EntityExistsError as error:
            raise UsageError(
                f"ZenML has a run named '{compiled.snapshot.run_name_template}' already.",
                hint="Choose another 'run_name', or use the placeholders {date} and {time} in it.",
            ) from error
        dynamic = compiled.deployment.dynamic
        cached = frozenset() if dynamic else Cache(stored, run, compiled.stack).record_all()
        if cached and len(cached) == len(compiled.deployment.steps):
            return CreatedRun(str(run.id), run.name, run_url(run), {}, cached, finished=True)
        variables = environment(run.id, compiled.stack, orchestrator_run_id)
        return CreatedRun(str(run.id), run.name, run_url(run), variables, cached=cached)


def existing_run(compiled: Compiled, run_id: str, variables: Mapping[str, str]) -> CreatedRun:
    """A placeholder run that ZenML has made.

    Args:
        compiled: What it is a run of.
        run_id: ZenML's run id.
        variables: How a sandbox reaches ZenML, from ZenML itself.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
        NotFoundError: There is no such run.
    """
    with translated():
        client = Client()
        run = get_run(run_id)
        # As in `create_run`: without one, the steps of another run could adopt it.
        orchestrator_run_id = run.orchestrator_run_id or str(uuid4())
        if run.orchestrator_run_id is None:
            client.zen_store.update_run(
                run.id, PipelineRunUpdate(orchestrator_run_id=orchestrator_run_id)
            )
        done = {s.name for s in step_runs(run_id) if s.status.is_successful}
        return CreatedRun(
            str(run.id),
            run.name,
            run_url(run),
            _complete(dict(variables), compiled.stack, orchestrator_run_id),
            cached=frozenset(done),
        )


def environment(run_id: UUID, stack: Stack, orchestrator_run_id: str) -> dict[str, str]:
    """The variables by which a sandbox reaches ZenML. They hold its credentials."""
    variables, secrets = get_config_environment_vars(pipeline_run_id=run_id)
    return _complete({**variables, **secrets}, stack, orchestrator_run_id)


def _complete(variables: dict[str, str], stack: Stack, orchestrator_run_id: str) -> dict[str, str]:
    """What ZenML gives a sandbox, and what else it needs to work on a run."""
    if GlobalConfiguration().store_configuration.type == StoreType.SQL:
        # The store was migrated just now, by this process; the check costs every sandbox 0.2 s.
        variables[ENV_ZENML_DISABLE_DATABASE_MIGRATION] = "true"
    if stack.artifact_store.config.is_local:
        # A sandbox has a home of its own; the artifacts are the same, and so are cache keys.
        variables[ENV_ZENML_LOCAL_STORES_PATH] = GlobalConfiguration().local_stores_path
    variables[ENV_ZENML_ACTIVE_STACK_ID] = str(stack.id)
    variables[ORCHESTRATOR_RUN_ID] = orchestrator_run_id
    return variables


def record_metadata(run_id: str, metadata: Mapping[str, Any]) -> bool:
    """Store facts about a run's sandboxes with the run; a failure to do so is only logged.

    Returns:
        Whether somebody has stopped the run before it could be known where its sandboxes are.
    """
    stored = dict(metadata)
    if url := stored.get(f"{PREFIX}sandbox_url"):
        # A link on ZenML's dashboard.
        stored[METADATA_ORCHESTRATOR_URL] = Uri(url)
    try:
        publish_metadata(run_id, stored)
        # Ignored where the run has begun, or ended, meanwhile (`pipeline_run_schemas.py:966`).
        run = Client().zen_store.update_run(
            UUID(run_id), PipelineRunUpdate(status=ExecutionStatus.PROVISIONING)
        )
        return run.status in {ExecutionStatus.STOPPING, ExecutionStatus.STOPPED}
    except Exception:
        logging.getLogger(__name__).warning("The run's metadata was not stored.", exc_info=True)
        return False


def publish_metadata(run_id: str, metadata: Mapping[str, Any]) -> None:
    """Store metadata with a run.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        orchestrator_id = Client().active_stack.orchestrator.id
        publish_pipeline_run_metadata(UUID(run_id), {orchestrator_id: dict(metadata)})


def finalize_run(run_id: str, reason: str, *, stopped: bool = False) -> bool:
    """Record the end of a run whose process can't do it any more.

    Every step that is not finished, and the run itself, become FAILED; STOPPED where somebody had
    asked ZenML to stop the run. What is finished stays as it is: ZenML's record always wins. A
    run that has paused stays paused, unless somebody wants its end. The runs of a dynamic
    pipeline's child pipelines end with it.

    Args:
        run_id: ZenML's run id.
        reason: What happened, in a sentence; stored with each step and the run.
        stopped: Somebody wanted this end: what is not finished becomes STOPPED.

    Returns:
        Whether there was anything to record.
    """
    changed = False
    with translated():
        client = Client()
        status = ExecutionStatus.STOPPED if stopped else ExecutionStatus.FAILED
        run = get_run(run_id)
        recorded = run.status
        if recorded == ExecutionStatus.PAUSED and not stopped:
            return False
        if recorded in {ExecutionStatus.STOPPING, ExecutionStatus.STOPPED}:
            status = ExecutionStatus.STOPPED
        elif stopped:
            # First, so that ZenML takes no more steps, and knows what to make of the end of these.
            changed = _end_run(client, run_id, status, reason)
        for child in _children(client, run):
            ended = finalize_run(child, reason, stopped=status == ExecutionStatus.STOPPED)
            changed = ended or changed
        for step in step_runs(run_id):
            if step.status.is_finished:
                continue
            # Of a step with retries left ZenML makes RETRYING (`sql_zen_store.py:13129`), but
            # nobody will retry it: only STOPPED is final then.
            for final in dict.fromkeys((status, ExecutionStatus.STOPPED)):
                updated = client.zen_store.update_run_step(
                    step.id,
                    StepRunUpdate(
                        status=final,
                        end_time=utc_now(),
                        exception_info=ExceptionInfo(traceback=reason),
                    ),
                )
                if updated.status.is_finished:
                    break
            changed = True
        return _end_run(client, run_id, status, reason) or changed


def _end_run(client: Client, run_id: str, status: ExecutionStatus, reason: str) -> bool:
    """Give a run a final status; returns whether it had none."""
    run = get_run(run_id)
    if run.status.is_finished:
        return False
    if status == ExecutionStatus.STOPPED:
        # ZenML computes a run's status from its steps; only STOPPING makes STOPPED of a run none of
        # whose steps was stopped (`pipeline_run_schemas.py:1310`, 0.98.0).
        status = ExecutionStatus.STOPPING
    # Between the look and the update the last step's end may have settled the run.
    with contextlib.suppress(IllegalOperationError):
        updated = client.zen_store.update_run(
            run.id, PipelineRunUpdate(status=status, status_reason=reason[:250])
        )
        if status == ExecutionStatus.STOPPING and run.snapshot and run.snapshot.is_dynamic:
            # A dynamic pipeline's run has the status that it is given.
            client.zen_store.update_run(
                updated.id, PipelineRunUpdate(status=ExecutionStatus.STOPPED)
            )
    return True


def mark_stopping(run_id: str, reason: str) -> bool:
    """Record that somebody wants the run to end; STOPPED at once where no step is unfinished.

    Running steps notice it with their next heartbeat and end; new ones are refused.

    Returns:
        Whether the run was still unfinished.
    """
    with translated():
        client = Client()
        if get_run(run_id).status.is_finished:
            return False
        try:
            client.zen_store.update_run(
                UUID(run_id),
                PipelineRunUpdate(status=ExecutionStatus.STOPPING, status_reason=reason[:250]),
            )
        except IllegalOperationError:
            return False
        return True


def _register_pipeline(client: Client, name: str) -> PipelineResponse:
    """The pipeline of a name as ZenML stores it, stored now if it wasn't."""
    found = client.list_pipelines(name=f"equals:{name}", size=1)
    if found.total:
        return found.items[0]
    try:
        return client.zen_store.create_pipeline(
            PipelineRequest(project=client.active_project.id, name=name)
        )
    except EntityExistsError:
        return client.list_pipelines(name=f"equals:{name}", size=1).items[0]


def _children(client: Client, run: PipelineRunResponse) -> list[str]:
    """The runs of child pipelines that are not finished."""
    if run.snapshot is None or not run.snapshot.is_dynamic:
        return []
    found = pagination_utils.depaginate(
        client.list_pipeline_runs, parent_run_id=run.id, project=client.active_project.id
    )
    return [str(child.id) for child in found if not child.status.is_finished]
