"""The logs that ZenML has stored of a run's steps, in the artifact store or a log store."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from zenml.client import Client

from modalrun.run.log_lines import LogLine
from modalrun.zenml_api import compat
from modalrun.zenml_api.errors import translated

if TYPE_CHECKING:
    from zenml.log_stores.base_log_store import BaseLogStore
    from zenml.models import LogEntry, LogsResponse

_PAGE = 100


def stored_lines(run_id: str) -> Iterator[LogLine]:
    """The stored lines of all steps of a run, one step after the other in the order they started.

    ZenML keeps what Python code prints, without its colours; not what child processes print.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
        Exception: Whatever the store of the logs raises; there are many kinds.
    """
    with translated():
        client = Client()
        steps: list[Any] = []
        page = 1
        while True:
            answer = client.list_run_steps(
                pipeline_run_id=UUID(run_id),
                size=_PAGE,
                page=page,
                hydrate=True,
                exclude_retried=False,
                sort_by="asc:start_time",
            )
            steps += answer.items
            if page >= answer.total_pages:
                break
            page += 1
    for step in steps:
        # What steps print and what ZenML says of them are two logs.
        logs = [_entries(client, one) for one in step.log_collection or []]
        for entry in heapq.merge(*logs, key=compat.moment):
            time = entry.timestamp.timestamp() if entry.timestamp else None
            source = entry.name if entry.name in {"stdout", "stderr"} else "stderr"
            for text in entry.message.rstrip("\n").split("\n"):
                yield LogLine(step.name, source, text, time, "", step.version)


def _entries(client: Client, logs: LogsResponse) -> Iterator[LogEntry]:
    """One step's entries, oldest first. Read from ZenML 0.98's `ArtifactLogStore`, which itself
    gives only what fits into one answer of the server."""
    if logs.artifact_store_id is not None and logs.uri:
        from zenml.log_stores.artifact.artifact_log_store import (
            _stream_logs_line_by_line,
            parse_log_entry,
        )

        store = compat.artifact_store(client.zen_store.get_stack_component(logs.artifact_store_id))
        for line in _stream_logs_line_by_line(store, logs.uri):
            if (entry := parse_log_entry(line)) is not None:
                yield entry
    elif logs.log_store_id is not None:
        from zenml.stack import StackComponent

        model = client.zen_store.get_stack_component(logs.log_store_id)
        log_store = cast("BaseLogStore", StackComponent.from_model(model))
        yield from compat.first_entries(log_store, logs)
