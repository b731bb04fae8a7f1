"""The functions of `ZenMLGateway`. Importing this module imports ZenML."""

from modalrun.zenml_api.compiling.image_builds import resolve_images
from modalrun.zenml_api.records.run_access import stop_requested
from modalrun.zenml_api.records.runs import (
    finalize_run,
    mark_stopping,
    publish_metadata,
    record_metadata,
)

__all__ = [
    "finalize_run",
    "mark_stopping",
    "publish_metadata",
    "record_metadata",
    "resolve_images",
    "stop_requested",
]
