"""The functions of `ZenMLGateway`. Importing this module imports ZenML."""

from modalrun.zenml_api.compiling.image_builds import resolve_images
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
