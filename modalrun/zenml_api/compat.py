"""What differs between the versions of ZenML that modalrun works with: 0.95.0 to 0.98.0.

Where a name has moved or a function takes other arguments, the rest of `zenml_api` asks here. What
is in only some of them and can be done without is left out in the others. Each function names the
version that brought its newer form.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, cast

from zenml.client import Client
from zenml.stack import StackComponent

if TYPE_CHECKING:
    from zenml.artifact_stores import BaseArtifactStore
    from zenml.log_stores.base_log_store import BaseLogStore
    from zenml.models import (
        ComponentResponse,
        LogEntry,
        LogsResponse,
        PipelineRunResponse,
        StepRunResponse,
    )
    from zenml.orchestrators.step_run_utils import StepRunRequestFactory

_ALL = 1_000_000
"""More log entries than a log store gives in one answer."""


def execution_context(run: PipelineRunResponse | None) -> AbstractContextManager[Any]:
    """In it ZenML remembers a run and its steps instead of asking again (0.96.2).

    Args:
        run: The run, where it has begun: ZenML needn't ask for it even once.
    """
    try:
        from zenml.execution.context import setup_execution_context
    except ImportError:
        return nullcontext()
    context = setup_execution_context()
    if hasattr(context, "pipeline_run"):
        context.pipeline_run = run
    return context


def artifact_store(model: ComponentResponse) -> BaseArtifactStore:
    """The artifact store of a model. (ZenML has such a function of its own from 0.96.0 on.)"""
    return cast("BaseArtifactStore", StackComponent.from_model(model))


def first_entries(store: BaseLogStore, logs: LogsResponse) -> Sequence[LogEntry]:
    """What a log store other than the artifact store gives of a log, oldest first.

    It gives a page from either end (0.97.0), or as many entries as it is asked for.
    """
    if "start" in inspect.signature(store.fetch).parameters:
        return store.fetch(logs_model=logs, start="oldest").items
    entries: list[LogEntry] = cast(Any, store.fetch)(logs_model=logs, limit=_ALL)
    return sorted(entries, key=moment)


def moment(entry: LogEntry) -> float:
    """When an entry was made, in seconds since the epoch; 0 where it doesn't say."""
    return entry.timestamp.timestamp() if entry.timestamp else 0.0


def remember(requests: StepRunRequestFactory, step_run: StepRunResponse) -> None:
    """Spare ZenML to fetch a step that is done once more for the inputs of later ones (0.96.2)."""
    if hasattr(requests, "record_step_run"):
        requests.record_step_run(step_run)


def as_recorded(step_run: StepRunResponse) -> StepRunResponse:
    """What ZenML's launcher returns of a step that has run, as it is recorded in the end (0.96.2).

    Before that it returns the record as it was when the step began.
    """
    if step_run.status.is_finished:
        return step_run
    return Client().zen_store.get_run_step(step_run.id, hydrate=False)
