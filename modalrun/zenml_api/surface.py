"""The functions of `ZenMLGateway`. Importing this module imports ZenML, but not its compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modalrun.plan.image_recipe import RegistryCredentials
from modalrun.plan.model import Plan
from modalrun.zenml_api.records.queries import (
    matching_runs,
    newest_runs,
    read_run,
    read_run_and_steps,
    step_attempts,
    step_names,
)
from modalrun.zenml_api.records.run_access import (
    credentials_of,
    driver_environment,
    read_manifest,
    record_stop_request,
    stop_requested,
    unfinished_steps,
)
from modalrun.zenml_api.records.runs import (
    finalize_run,
    mark_stopping,
    publish_metadata,
    record_metadata,
)

if TYPE_CHECKING:
    from modalrun.zenml_api.compiling.compile import Compiled

__all__ = [
    "credentials_of",
    "driver_environment",
    "finalize_run",
    "mark_stopping",
    "matching_runs",
    "newest_runs",
    "publish_metadata",
    "read_manifest",
    "read_run",
    "read_run_and_steps",
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
    from modalrun.zenml_api.compiling import image_builds

    return image_builds.resolve_images(plan, compiled)
