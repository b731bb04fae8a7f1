"""The functions of `ZenMLGateway`. Importing this module does not import ZenML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modalrun.plan.image_recipe import BuiltByZenML
from modalrun.zenml_api.records import stores
from modalrun.zenml_api.records.queries import (
    active_user,
    matching_runs,
    newest_runs,
    read_run,
    read_run_and_steps,
    step_attempts,
    step_names,
)
from modalrun.zenml_api.records.run_access import (
    app_of,
    credentials_of,
    deployment_id,
    deployment_of,
    read_source,
    record_stop_request,
    stop_requested,
    unfinished_steps,
)
from modalrun.zenml_api.records.updates import (
    finalize_run,
    mark_stopping,
    publish_metadata,
    record_metadata,
)

if TYPE_CHECKING:
    from modalrun.plan.image_recipe import RegistryCredentials
    from modalrun.plan.model import Plan
    from modalrun.run.artifacts import Artifact
    from modalrun.spec.run_spec import RunSpec
    from modalrun.zenml_api.compiling.compile import Compiled

__all__ = [
    "active_user",
    "app_of",
    "artifacts_of",
    "credentials_of",
    "deployment_of",
    "driver_environment",
    "finalize_run",
    "load_deployment_of_run",
    "mark_stopping",
    "matching_runs",
    "newest_runs",
    "publish_metadata",
    "read_run",
    "read_run_and_steps",
    "read_source",
    "record_metadata",
    "record_stop_request",
    "resolve_images",
    "step_attempts",
    "step_names",
    "stop_requested",
    "unfinished_steps",
]


def resolve_images(plan: Plan, compiled: Compiled) -> tuple[Plan, RegistryCredentials | None]:
    """Do as `compiling.image_builds.resolve_images`, which takes long to import."""
    kinds = {component.kind for component in compiled.stack_description.components}
    built = any(isinstance(recipe.base, BuiltByZenML) for recipe in plan.images.values())
    if not built and "container_registry" not in kinds:
        return plan, None
    from modalrun.zenml_api.compiling import image_builds

    return image_builds.resolve_images(plan, compiled)


def artifacts_of(run_id: str, *, visualizations: bool = False) -> list[Artifact]:
    """Do as `records.artifacts.artifacts_of`, for which ZenML is imported."""
    stores.open_zenml()
    from modalrun.zenml_api.records import artifacts

    return artifacts.artifacts_of(run_id, visualizations=visualizations)


def driver_environment(run_id: str) -> dict[str, str]:
    """Do as `records.runs.driver_environment`, for which ZenML is imported."""
    stores.open_zenml()
    from modalrun.zenml_api.records import runs

    return runs.driver_environment(run_id)


def load_deployment_of_run(run_id: str, spec: RunSpec) -> Compiled:
    """Load the deployment of a run as a submission of it does, for the spec's target and tree.

    Raises:
        NotFoundError: There is no such run, or its deployment was deleted.
        ModalrunError: As for `compiling.snapshots.from_zenml`.
    """
    stores.open_zenml()
    from zenml.utils import source_utils

    from modalrun.zenml_api.compiling import snapshots

    source_utils.set_custom_source_root(str(spec.source_root))
    return snapshots.from_zenml(deployment_id(run_id), spec)
