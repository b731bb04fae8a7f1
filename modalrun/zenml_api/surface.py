"""The functions of `ZenMLGateway`. Importing this module imports ZenML."""

from modalrun.zenml_api.compiling.image_builds import resolve_images
from modalrun.zenml_api.records.runs import finalize_run, mark_stopping, record_metadata
from modalrun.zenml_api.records.stopping import announce, is_stop_requested

__all__ = [
    "announce",
    "finalize_run",
    "is_stop_requested",
    "mark_stopping",
    "record_metadata",
    "resolve_images",
]
