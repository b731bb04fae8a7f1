"""Create runs in ZenML, and tell their sandboxes how to use it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from zenml.client import Client
from zenml.config.global_config import GlobalConfiguration
from zenml.constants import (
    ENV_ZENML_ACTIVE_STACK_ID,
    ENV_ZENML_DISABLE_DATABASE_MIGRATION,
    ENV_ZENML_LOCAL_STORES_PATH,
)
from zenml.enums import StoreType
from zenml.exceptions import EntityExistsError
from zenml.models import (
    PipelineRequest,
    PipelineResponse,
    PipelineRunResponse,
    PipelineRunUpdate,
    PipelineSnapshotRequest,
    PipelineSnapshotResponse,
)
from zenml.orchestrators.utils import get_config_environment_vars
from zenml.pipelines.run_utils import create_placeholder_run
from zenml.stack import Stack
from zenml.utils.dashboard_utils import get_run_url

from modalrun.errors import UsageError
from modalrun.run.contract import ORCHESTRATOR_RUN_ID
from modalrun.run.metadata import PREFIX
from modalrun.run.records import SUCCESSFUL, CreatedRun, Placeholder
from modalrun.run.rerun import Rerun
from modalrun.util import timeline
from modalrun.zenml_api.errors import only_logged, translated
from modalrun.zenml_api.records import stores
from modalrun.zenml_api.records.cache import Cache
from modalrun.zenml_api.records.queries import get_run, step_runs
from modalrun.zenml_api.records.updates import publish_metadata
from modalrun.zenml_api.stacks import load_stack

if TYPE_CHECKING:
    from modalrun.zenml_api.compiling.compile import Compiled


def create_run(compiled: Compiled, placeholder: Placeholder) -> CreatedRun:
    """Store the deployment and the placeholder run, so that the run id exists before any sandbox.

    What ZenML's cache has of its steps is recorded at once.

    Args:
        placeholder: Gets the run's id at once: what follows may fail.

    Raises:
        UsageError: A run of this name exists.
    """
    with translated():
        with timeline.phase("store the deployment"):
            stored = _stored(Client(), compiled)
        # Without an id of its own a run could be adopted by the steps of another one
        # (`sql_zen_store.py:7246`).
        orchestrator_run_id = str(uuid4())
        try:
            with timeline.phase("create the run"):
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
        placeholder.run_id = str(run.id)
        dynamic = compiled.deployment.dynamic
        url = get_run_url(run) or None
        if rerun is not None:
            _link(rerun, run)
        with timeline.phase("look up cached steps"):
            done = {} if dynamic else Cache(stored, run, compiled.stack).record_all()
        if done and len(done) == len(compiled.deployment.steps):
            return CreatedRun(str(run.id), run.name, url, {}, done, finished=True)
        with timeline.phase("get the run's token"):
            variables = _environment(run.id, compiled.stack, orchestrator_run_id)
        return CreatedRun(str(run.id), run.name, url, variables, done, snapshot_id=str(stored.id))


def _link(rerun: Rerun, run: PipelineRunResponse) -> None:
    """Link a run and the earlier one that it reruns, by metadata and a tag that both have.

    A failure to do so is only logged.
    """
    with only_logged("The runs were not linked"):
        publish_metadata(str(run.id), {f"{PREFIX}rerun_of": rerun.run_id})
        publish_metadata(rerun.run_id, {f"{PREFIX}rerun_by": str(run.id)})
        # The new run has the tag from its deployment.
        tag = PipelineRunUpdate(add_tags=[rerun.tag])
        Client().zen_store.update_run(UUID(rerun.run_id), tag)


def existing_run(compiled: Compiled, run_id: str, variables: Mapping[str, str]) -> CreatedRun:
    """Return a placeholder run that ZenML has created.

    Args:
        variables: ZenML's own variables for the sandbox.

    Raises:
        NotFoundError: There is no such run.
    """
    with translated():
        run = get_run(run_id)
        # As in `create_run`: without one, the steps of another run could adopt it.
        orchestrator_run_id = run.orchestrator_run_id or str(uuid4())
        if run.orchestrator_run_id is None:
            stores.current().update_run(run_id, orchestrator_run_id=orchestrator_run_id)
        steps = step_runs(run_id)
        return CreatedRun(
            run_id,
            run.name,
            run.url,
            complete(dict(variables), compiled.stack, orchestrator_run_id),
            done={one.name: SUCCESSFUL[one.status] for one in steps if one.successful},
        )


def _environment(run_id: UUID, stack: Stack, orchestrator_run_id: str) -> dict[str, str]:
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
    local = [part.local_path for part in stack.all_components if part.local_path]
    if local:
        # Sandboxes of the local Modal server see no other folder of this machine.
        # A name of its own: MODALRUN_LOCAL_SHARED is the user's.
        variables["MODALRUN_LOCAL_STACK"] = os.pathsep.join(local)
    variables[ENV_ZENML_ACTIVE_STACK_ID] = str(stack.id)
    variables[ORCHESTRATOR_RUN_ID] = orchestrator_run_id
    return variables


def driver_environment(run_id: str) -> dict[str, str]:
    """Return the variables with which a driver uses ZenML. They hold its credentials.

    Raises:
        NotFoundError: There is no such run.
        UsageError: Its deployment or its stack was deleted.
    """
    with translated():
        run = get_run(run_id)
        if run.deployment is None or run.stack is None:
            raise UsageError(f"The deployment or the stack of the run {run_id} was deleted.")
        stack = load_stack(Client().zen_store.get_stack(UUID(run.stack.id)))
        return _environment(UUID(run_id), stack, str(run.orchestrator_run_id))


def _stored(client: Client, compiled: Compiled) -> PipelineSnapshotResponse:
    """Return the deployment as ZenML stores it."""
    if compiled.stored_id is not None:
        return client.zen_store.get_snapshot(compiled.stored_id)
    return client.zen_store.create_snapshot(
        PipelineSnapshotRequest(
            project=client.active_project.id,
            stack=compiled.stack.id,
            pipeline=_register_pipeline(client, compiled.deployment.pipeline).id,
            source_code=compiled.source_code,
            **compiled.snapshot.model_dump(),
        )
    )


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
