"""Read the logs that ZenML has stored of a run and its steps, wherever it stores them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast
from uuid import UUID

from zenml.client import Client
from zenml.stack import StackComponent
from zenml.utils import pagination_utils

from modalrun.run.log_lines import LogLine
from modalrun.zenml_api import compat
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.records import stores

if TYPE_CHECKING:
    from zenml.artifact_stores import BaseArtifactStore
    from zenml.log_stores.base_log_store import BaseLogStore
    from zenml.models import LogEntry, LogsResponse

_PAGE = 1000
"""Attempts at steps in one request."""


def stored_lines(run_id: str) -> Iterator[LogLine]:
    """Yield the stored lines of a run: those of no step, then one step after the other.

    ZenML stores what Python code prints, without its colours; not what child processes print.

    Raises:
        Exception: Whatever the store of the logs raises; there are many kinds.
    """
    stores.open_zenml()
    with translated():
        client = Client()
        run = client.zen_store.get_run(UUID(run_id), hydrate=False)
        steps = pagination_utils.depaginate(
            client.list_run_steps,
            pipeline_run_id=run.id,
            project=run.project_id,
            exclude_retried=False,
            size=_PAGE,
        )
    yield from _lines(client, None, run.log_collection, 1)
    for step in sorted(steps, key=lambda one: one.start_time or one.created):
        yield from _lines(client, step.name, step.log_collection, step.version)


def _lines(
    client: Client, step: str | None, collection: list[LogsResponse] | None, attempt: int
) -> Iterator[LogLine]:
    # A step's output and ZenML's own messages about it are two logs.
    logs = [_entries(client, one) for one in collection or []]
    for entry in heapq.merge(*logs, key=compat.seconds):
        time = entry.timestamp.timestamp() if entry.timestamp else None
        source = entry.name if entry.name in {"stdout", "stderr"} else "stderr"
        for text in entry.message.rstrip("\n").split("\n"):
            yield LogLine(step, source, text, time, "", attempt)


def _entries(client: Client, logs: LogsResponse) -> Iterator[LogEntry]:
    """Yield one log's entries, oldest first.

    Read from ZenML 0.98's `ArtifactLogStore`, which itself returns one answer's worth only.
    """
    uri = logs.uri if logs.artifact_store_id is not None else None
    store_id = logs.artifact_store_id if uri else logs.log_store_id
    if store_id is None:
        return
    store = StackComponent.from_model(client.zen_store.get_stack_component(store_id))
    if not uri:
        yield from compat.first_entries(cast("BaseLogStore", store), logs)
        return
    from zenml.log_stores.artifact.artifact_log_store import (
        _stream_logs_line_by_line,
        parse_log_entry,
    )

    for line in _stream_logs_line_by_line(cast("BaseArtifactStore", store), uri):
        if (entry := parse_log_entry(line)) is not None:
            yield entry
