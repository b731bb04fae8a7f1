"""Read what ZenML has of runs and steps whose metadata it can't decode, without their metadata.

Whoever may write in the ZenML project can store such metadata, a deeply nested list for one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from zenml.client import Client
from zenml.config.pipeline_configurations import PipelineConfiguration
from zenml.models import (
    PipelineRunResponse,
    PipelineRunResponseMetadata,
    PipelineRunUpdate,
    StepRunResponse,
    StepRunResponseMetadata,
    StepRunUpdate,
)

from modalrun.zenml_api.errors import ServerTrouble
from modalrun.zenml_api.retry import impatient

T = TypeVar("T")

_ERRORS = (RecursionError, ValueError)
"""Of `json` and pydantic, here or on ZenML's server."""


class _UnknownMetadata(PipelineRunResponseMetadata):
    """The metadata of a run that has others, which ZenML can't decode."""


def is_undecodable(run: PipelineRunResponse) -> bool:
    """Return whether ZenML can't decode a run's metadata."""
    return isinstance(run.metadata, _UnknownMetadata)


def with_metadata_or_not(read: Callable[[], T], plain: Callable[[], T]) -> T:
    """Read with metadata, or if ZenML can't decode them, without.

    Args:
        read: Reads with metadata.
        plain: Reads without.
    """
    try:
        with impatient():
            return read()
    except _ERRORS:
        return plain()
    except ServerTrouble:
        found = plain()
    # The server may have had trouble with everything just now.
    with contextlib.suppress(ServerTrouble), impatient():
        return read()
    return found


def run_without_metadata(run: PipelineRunResponse) -> PipelineRunResponse:
    """Return ZenML's un-hydrated response with empty metadata, so that none are requested."""
    run.metadata = _UnknownMetadata(
        config=PipelineConfiguration(name="unknown"), enable_heartbeat=False
    )
    return run


def step_without_metadata(step: StepRunResponse) -> StepRunResponse:
    """Return ZenML's un-hydrated response with empty metadata, so that none are requested."""
    unknown = dict.fromkeys(("config", "spec", "snapshot_id", "pipeline_run_id"))
    step.metadata = StepRunResponseMetadata.model_construct(**unknown)
    return step


def update_run(run: PipelineRunResponse, update: PipelineRunUpdate) -> PipelineRunResponse:
    """Update a run; with an update stored, ZenML may be unable to decode metadata to return."""
    store = Client().zen_store
    try:
        return store.update_run(run.id, update)
    except _ERRORS:
        if not is_undecodable(run):
            raise
        return run_without_metadata(store.get_run(run.id, hydrate=False))


def update_step(step_run_id: UUID, update: StepRunUpdate) -> StepRunResponse:
    """Update a step; with an update stored, ZenML may be unable to decode metadata to return."""
    store = Client().zen_store
    try:
        return store.update_run_step(step_run_id, update)
    except _ERRORS:
        after = store.get_run_step(step_run_id, hydrate=False)
        if after.status != update.status:
            raise
        return step_without_metadata(after)
