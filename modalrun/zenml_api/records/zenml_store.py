"""Read and write records with ZenML's own client, on a server or in a database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from zenml.client import Client
from zenml.enums import MetadataResourceTypes
from zenml.exceptions import EntityExistsError, IllegalOperationError
from zenml.metadata.metadata_types import Uri
from zenml.models import (
    PipelineRunResponse,
    PipelineRunUpdate,
    RunMetadataResource,
    StepRunRequest,
    StepRunResponse,
    StepRunUpdate,
)
from zenml.utils.dashboard_utils import get_run_url

from modalrun.zenml_api.errors import NotAllowedError
from modalrun.zenml_api.records.responses import (
    Link,
    Page,
    StoredDeployment,
    StoredRun,
    StoredStep,
    encoded_time,
    stored_deployment,
    stored_run,
    stored_step,
)

if TYPE_CHECKING:
    from modalrun.zenml_api.component import OrchestratorComponent

# What `responses` reads: all of a response takes long to encode.
_RUN: Any = {
    "id": True,
    "name": True,
    "body": True,
    "metadata": {"run_metadata", "start_time", "end_time", "orchestrator_run_id"},
    "resources": {
        "pipeline": {"name"},
        "stack": {"id", "name"},
        "user": {"id", "name"},
        "snapshot": {"id", "body"},
        "parent_run": {"id"},
    },
}
_STEP: Any = {
    "id": True,
    "name": True,
    "body": True,
    "metadata": {
        "run_metadata": True,
        "exception_info": True,
        "pipeline_run_id": True,
        "spec": {"upstream_steps"},
        "config": {"environment"},
    },
    "resources": {"outputs"},
}
_SNAPSHOT: Any = {
    "body": True,
    "metadata": {"pipeline_spec", "pipeline_configuration", "client_environment"},
}


class ZenMLStore:
    """The store of ZenML's client; see `stores.Store`."""

    def run(self, run_id: str, *, hydrate: bool = True) -> StoredRun:
        return _run(Client().zen_store.get_run(UUID(run_id), hydrate=hydrate))

    def runs(self, *, hydrate: bool, **filters: Any) -> Page[StoredRun]:
        page = Client().list_pipeline_runs(hydrate=hydrate, **filters)
        return Page([_run(run) for run in page.items], page.total_pages)

    def step(self, step_run_id: str, *, hydrate: bool = True) -> StoredStep:
        return _step(Client().zen_store.get_run_step(UUID(step_run_id), hydrate=hydrate))

    def steps(self, *, hydrate: bool, **filters: Any) -> Page[StoredStep]:
        page = Client().list_run_steps(hydrate=hydrate, **filters)
        return Page([_step(step) for step in page.items], page.total_pages)

    def deployment(self, deployment_id: str, only: list[str]) -> StoredDeployment:
        snapshot = Client().zen_store.get_snapshot(
            UUID(deployment_id), step_configuration_filter=only
        )
        return stored_deployment(snapshot.model_dump(mode="json", include=_SNAPSHOT))

    def orchestrator(self, stack_id: str) -> OrchestratorComponent:
        from modalrun.zenml_api.stacks import orchestrator_of

        return orchestrator_of(Client().zen_store.get_stack(UUID(stack_id)))

    def active_user(self) -> str:
        return str(Client().active_user.id)

    def update_run(self, run_id: str, **changes: Any) -> StoredRun:
        update = PipelineRunUpdate(**changes)
        with _allowed():
            return _run(Client().zen_store.update_run(UUID(run_id), update))

    def update_step(self, step_run_id: str, **changes: Any) -> StoredStep:
        update = StepRunUpdate(**changes)
        with _allowed():
            return _step(Client().zen_store.update_run_step(UUID(step_run_id), update))

    def add_metadata(
        self, kind: Literal["pipeline_run", "step_run"], owner: str, values: Mapping[str, Any]
    ) -> None:
        resource = RunMetadataResource(id=UUID(owner), type=MetadataResourceTypes(kind))
        typed = {key: Uri(one) if isinstance(one, Link) else one for key, one in values.items()}
        Client().create_run_metadata(metadata=typed, resources=[resource])


def create_failed_step(run_id: str, step: str, info: Mapping[str, str]) -> StoredStep:
    """Create the record of an attempt at a step that has failed.

    Raises:
        NotAllowedError: There is one meanwhile, or the run is over.
    """
    request = {
        "name": step,
        "pipeline_run_id": run_id,
        "project": Client().active_project.id,
        "status": "failed",
        "start_time": (now := encoded_time()),
        "end_time": now,
        "exception_info": info,
    }
    with _allowed():
        store = Client().zen_store
        return _step(store.create_run_step(StepRunRequest.model_validate(request)))


@contextlib.contextmanager
def _allowed() -> Iterator[None]:
    try:
        yield
    except (IllegalOperationError, EntityExistsError) as error:
        raise NotAllowedError(str(error)) from error


def _run(run: PipelineRunResponse) -> StoredRun:
    return stored_run(run.model_dump(mode="json", include=_RUN), get_run_url(run) or None)


def _step(step: StepRunResponse) -> StoredStep:
    return stored_step(step.model_dump(mode="json", include=_STEP))
