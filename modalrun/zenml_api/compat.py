"""Hide the differences between the ZenML versions that modalrun works with: 0.95.0 to 0.98.0.

Each function names the version that brought its newer form.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from zenml.config import DockerSettings
    from zenml.config.step_configurations import StepConfiguration
    from zenml.log_stores.base_log_store import BaseLogStore
    from zenml.models import LogEntry, LogsResponse, PipelineRunResponse, StepRunResponse
    from zenml.orchestrators import BaseOrchestrator
    from zenml.orchestrators.step_run_utils import StepRunRequestFactory
    from zenml.utils.logging_utils import LoggingContext

_ALL = 1_000_000
"""More log entries than a log store gives in one answer, and more steps than a run has."""


def execution_context(run: PipelineRunResponse | None) -> AbstractContextManager[Any]:
    """Let ZenML remember a run and its steps instead of requesting them again (0.96.2).

    Args:
        run: The run, if it has begun: ZenML then needn't request it even once.
    """
    # A step with more inputs than ZenML remembers steps (100) fails (`input_utils.py:75`, 0.98.0).
    os.environ["ZENML_EXECUTION_CONTEXT_STEP_RUN_CACHE_SIZE"] = str(_ALL)
    try:
        from zenml.execution.context import setup_execution_context
    except ImportError:
        return nullcontext()
    context = setup_execution_context()
    if hasattr(context, "pipeline_run"):
        context.pipeline_run = run
    return context


@contextmanager
def disabled(log: LoggingContext) -> Iterator[None]:
    """Keep a log from what is printed in the block (`LoggingContext.disabled`, 0.95.1)."""
    log._disabled = True
    try:
        yield
    finally:
        log._disabled = False


def is_inline(config: StepConfiguration, docker: DockerSettings, kind: BaseOrchestrator) -> bool:
    """Return whether ZenML runs a dynamic pipeline's step in the pipeline's own process.

    ZenML's answer has a warning, too (0.97.0).
    """
    from zenml.enums import StepRuntime
    from zenml.execution.pipeline.dynamic.compilation import get_step_runtime

    found: Any = get_step_runtime(config, docker, kind)
    return StepRuntime.INLINE in (found if isinstance(found, tuple) else [found])


def first_entries(store: BaseLogStore, logs: LogsResponse) -> Sequence[LogEntry]:
    """Return the first entries of a log in a log store other than the artifact store.

    The store gives a page from either end (0.97.0), or as many entries as it is asked for.
    """
    if "start" in inspect.signature(store.fetch).parameters:
        return store.fetch(logs_model=logs, start="oldest").items
    entries: list[LogEntry] = cast(Any, store.fetch)(logs_model=logs, limit=_ALL)
    return sorted(entries, key=seconds)


def seconds(entry: LogEntry) -> float:
    """Return the time of a log entry in seconds since the epoch; 0 if it has none."""
    return entry.timestamp.timestamp() if entry.timestamp else 0.0


def remember(requests: StepRunRequestFactory, step_run: StepRunResponse) -> None:
    """Save ZenML from requesting a finished step for the inputs of later ones (0.96.2)."""
    if hasattr(requests, "record_step_run"):
        requests.record_step_run(step_run)
