"""Create runs in ZenML, store their metadata and record their ends."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
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
    PipelineRequest,
    PipelineResponse,
    PipelineRunResponse,
    PipelineRunUpdate,
    PipelineSnapshotRequest,
)
from zenml.orchestrators.publish_utils import publish_pipeline_run_metadata
from zenml.orchestrators.utils import get_config_environment_vars
from zenml.pipelines.run_utils import create_placeholder_run
from zenml.stack import Stack
from zenml.utils import pagination_utils

from modalrun.errors import NotFoundError, UsageError
from modalrun.run.metadata import PREFIX
from modalrun.run.records import SUCCESSFUL, CreatedRun
from modalrun.run.rerun import Rerun
from modalrun.zenml_api.errors import first_line, translated
from modalrun.zenml_api.orchestrator import ORCHESTRATOR_RUN_ID
from modalrun.zenml_api.records.cache import Cache
from modalrun.zenml_api.records.queries import STOPPED, get_run, run_url, step_runs
from modalrun.zenml_api.records.step_records import end_step
from modalrun.zenml_api.records.undecodable import update_run

if TYPE_CHECKING:
    from modalrun.zenml_api.compiling.compile import Compiled

_REASON = 250
"""Characters of a reason that ZenML stores with a run (a column of 255)."""


def create_run(compiled: Compiled) -> CreatedRun:
    """Store the deployment and the placeholder run, so that the run id exists before any sandbox.

    What ZenML's cache has of its steps is recorded at once.

    Raises:
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
            run = create_placeholder_run(
                stored,
                orchestrator_run_id=orchestrator_run_id,
                original_run_id=UUID(rerun.run_id) if (rerun := compiled.rerun) else None,
            )
        except EntityExistsError as error:
            raise UsageError(
                f"ZenML has a run named '{compiled.snapshot.run_name_template}' already.",
                hint="Choose another 'run_name', or use the placeholders {date} and {time} in it.",
            ) from error
        dynamic = compiled.deployment.dynamic
        if rerun is not None:
            _link(rerun, run)
        done = {} if dynamic else Cache(stored, run, compiled.stack).record_all()
        if done and len(done) == len(compiled.deployment.steps):
            return CreatedRun(str(run.id), run.name, run_url(run), {}, done, finished=True)
        variables = environment(run.id, compiled.stack, orchestrator_run_id)
        return CreatedRun(str(run.id), run.name, run_url(run), variables, done)


def _link(rerun: Rerun, run: PipelineRunResponse) -> None:
    """Link a run and the earlier one that it reruns, by metadata and a tag that both have.

    A failure to do so is only logged.
    """
    try:
        publish_metadata(str(run.id), {f"{PREFIX}rerun_of": rerun.run_id})
        publish_metadata(rerun.run_id, {f"{PREFIX}rerun_by": str(run.id)})
        # The new run has the tag from its deployment.
        tag = PipelineRunUpdate(add_tags=[rerun.tag])
        Client().zen_store.update_run(UUID(rerun.run_id), tag)
    except Exception as error:
        logging.getLogger(__name__).warning("The runs were not linked: %s", first_line(error))


def existing_run(compiled: Compiled, run_id: str, variables: Mapping[str, str]) -> CreatedRun:
    """Return a placeholder run that ZenML has created.

    Args:
        compiled: Its pipeline.
        variables: ZenML's own variables for the sandbox.

    Raises:
        NotFoundError: There is no such run.
    """
    with translated():
        run = get_run(run_id)
        # As in `create_run`: without one, the steps of another run could adopt it.
        orchestrator_run_id = run.orchestrator_run_id or str(uuid4())
        if run.orchestrator_run_id is None:
            update_run(run, PipelineRunUpdate(orchestrator_run_id=orchestrator_run_id))
        recorded = {step.name: step.status for step in step_runs(run_id)}
        return CreatedRun(
            str(run.id),
            run.name,
            run_url(run),
            complete(dict(variables), compiled.stack, orchestrator_run_id),
            done={n: SUCCESSFUL[s.value] for n, s in recorded.items() if s.is_successful},
        )


def environment(run_id: UUID, stack: Stack, orchestrator_run_id: str) -> dict[str, str]:
    """Return the variables with which a sandbox uses ZenML. They hold credentials."""
    variables, secrets = get_config_environment_vars(pipeline_run_id=run_id)
    return complete({**variables, **secrets}, stack, orchestrator_run_id)


def complete(variables: dict[str, str], stack: Stack, orchestrator_run_id: str) -> dict[str, str]:
    """Add the variables that a sandbox needs beside ZenML's own."""
    if GlobalConfiguration().store_configuration.type == StoreType.SQL:
        # This process has migrated the store; the check would take every sandbox 0.2 s.
        variables[ENV_ZENML_DISABLE_DATABASE_MIGRATION] = "true"
    if stack.artifact_store.config.is_local:
        # A sandbox has its own home folder, but must find the same artifacts and cache keys.
        variables[ENV_ZENML_LOCAL_STORES_PATH] = GlobalConfiguration().local_stores_path
    variables[ENV_ZENML_ACTIVE_STACK_ID] = str(stack.id)
    variables[ORCHESTRATOR_RUN_ID] = orchestrator_run_id
    return variables


def record_metadata(run_id: str, metadata: Mapping[str, Any]) -> bool:
    """Store metadata of the run sandbox with the run; a failure to do so is only logged.

    Returns:
        Whether the run was stopped before its sandbox was known.
    """
    stored = dict(metadata)
    if url := stored.get(f"{PREFIX}sandbox_url"):
        # A link on ZenML's dashboard.
        stored[METADATA_ORCHESTRATOR_URL] = Uri(url)
    try:
        publish_metadata(run_id, stored)
        # ZenML ignores it if the run has begun or ended (`pipeline_run_schemas.py:966`).
        run = Client().zen_store.update_run(
            UUID(run_id), PipelineRunUpdate(status=ExecutionStatus.PROVISIONING)
        )
        return run.status in STOPPED
    except Exception as error:
        logging.getLogger(__name__).warning(
            "The run's metadata was not stored: %s", first_line(error)
        )
        return False


def publish_metadata(run_id: str, metadata: Mapping[str, Any]) -> None:
    """Store metadata with a run."""
    with translated():
        orchestrator_id = Client().active_stack.orchestrator.id
        publish_pipeline_run_metadata(UUID(run_id), {orchestrator_id: dict(metadata)})


def finalize_run(run_id: str, reason: str, *, stopped: bool = False) -> bool:
    """Record the end of a run whose process has ended.

    The run and its unfinished steps become FAILED, or STOPPED if the run was stopped. Finished
    records are not changed, but a failed run without a reason gets one. A paused run stays paused
    unless it is stopped. The runs of a dynamic pipeline's child pipelines end with it.

    Args:
        reason: The reason, in a sentence; stored with each step and the run.
        stopped: Whether the run was stopped on request.

    Returns:
        Whether any record was unfinished.
    """
    changed = False
    with translated():
        client = Client()
        status = ExecutionStatus.STOPPED if stopped else ExecutionStatus.FAILED
        run = get_run(run_id)
        recorded = run.status
        if recorded == ExecutionStatus.PAUSED and not stopped:
            return False
        _require_deployment(run)
        if recorded in STOPPED:
            status = ExecutionStatus.STOPPED
        else:
            # First, so that ZenML creates no more steps, and no stopped step makes a run stopped
            # that has failed.
            changed = _end_run(client, run_id, status, reason)
        for child in _children(client, run):
            ended = finalize_run(child, reason, stopped=status == ExecutionStatus.STOPPED)
            changed = ended or changed
        for step in step_runs(run_id):
            if step.status.is_finished:
                continue
            # ZenML sets a failed step with retries left to RETRYING (`sql_zen_store.py:13129`).
            # No retry follows here, and only STOPPED is final then.
            # Somebody else may end it at the same time, or end the run: ZenML then refuses.
            with _recorded(run):
                for final in dict.fromkeys((status, ExecutionStatus.STOPPED)):
                    if end_step(step.id, final, reason).finished:
                        break
            changed = True
        return _end_run(client, run_id, status, reason) or changed


def _end_run(client: Client, run_id: str, status: ExecutionStatus, reason: str) -> bool:
    """Give a run a final status; return whether it had none."""
    run = get_run(run_id)
    if run.status.is_finished:
        unexplained = run.status.is_failed and not run.get_body().status_reason
        if unexplained and status == run.status and run.snapshot is not None:
            # ZenML ends a run with its failed step, or function, and gives no reason.
            with _recorded(run):
                update_run(run, PipelineRunUpdate(status=status, status_reason=reason[:_REASON]))
        return False
    if status == ExecutionStatus.STOPPED:
        # ZenML computes a run's status from its steps. Without a stopped step, only STOPPING leads
        # to STOPPED (`pipeline_run_schemas.py:1310`, 0.98.0).
        status = ExecutionStatus.STOPPING
    # The end of the last step may have ended the run meanwhile.
    with _recorded(run):
        updated = update_run(run, PipelineRunUpdate(status=status, status_reason=reason[:_REASON]))
        if status == ExecutionStatus.STOPPING and run.snapshot and run.snapshot.is_dynamic:
            # ZenML computes no status for the run of a dynamic pipeline.
            update_run(updated, PipelineRunUpdate(status=ExecutionStatus.STOPPED))
    return True


@contextlib.contextmanager
def _recorded(run: PipelineRunResponse) -> Iterator[None]:
    """Ignore that a run or a step has ended meanwhile.

    Once ZenML has stored the end of a run whose stack was deleted, it fails at an assertion about
    the stack (`sql_zen_store.py:13539`, 0.98.0).
    """
    try:
        yield
    except IllegalOperationError:
        pass
    except Exception:
        if run.snapshot is None or run.snapshot.stack is not None:
            raise


def _require_deployment(run: PipelineRunResponse) -> None:
    """Refuse a run that ZenML can't update (`pipeline_run_schemas.py:978`, an assertion)."""
    if run.snapshot is None and not run.status.is_finished:
        raise NotFoundError(
            f"ZenML can't record the end of the run {run.id}: its deployment was deleted.",
            hint=f"'zenml pipeline runs delete {run.id}' removes its record.",
        )


def mark_stopping(run_id: str, reason: str) -> bool:
    """Record that the run is stopping; ZenML sets it to STOPPED if no step is unfinished.

    Running steps end at their next heartbeat; new ones are refused.

    Returns:
        Whether the run was still unfinished.
    """
    with translated():
        run = get_run(run_id)
        if run.status.is_finished:
            return False
        _require_deployment(run)
        recorded = False
        with _recorded(run):
            update_run(
                run,
                PipelineRunUpdate(status=ExecutionStatus.STOPPING, status_reason=reason[:_REASON]),
            )
            recorded = True
        return recorded  # noqa: RET504 (the block may end early)


def _register_pipeline(client: Client, name: str) -> PipelineResponse:
    """Return ZenML's record of a pipeline, created if there is none."""
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
    """Return the unfinished runs of child pipelines."""
    if run.snapshot is None or not run.snapshot.is_dynamic:
        return []
    found = pagination_utils.depaginate(
        client.list_pipeline_runs, parent_run_id=run.id, project=client.active_project.id
    )
    return [str(child.id) for child in found if not child.status.is_finished]
