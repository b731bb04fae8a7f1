"""Serve the RPCs about logs: V1 streams, the history of sandboxes and apps, following an app.

An entry of the history is a line. V1 entry ids are byte offsets, an app's entry ids are times in
nanoseconds. Both survive a restart of the server, so a client can resume.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from modal_proto import api_pb2 as api

from modalrun.localmodal.sandbox.sandboxes import Sandboxes
from modalrun.localmodal.server.faults import Faults
from modalrun.localmodal.server.rpc import invalid, rpc
from modalrun.localmodal.services.apps import Apps
from modalrun.localmodal.services.images import BUILD_TASK, Images
from modalrun.localmodal.signals import CHUNK
from modalrun.localmodal.storage.logstore import (
    STDERR,
    STDOUT,
    LogStore,
    SandboxLog,
    Span,
    whole_characters,
)
from modalrun.localmodal.storage.store import SandboxRecord, Store

_DESCRIPTORS = {STDOUT: api.FILE_DESCRIPTOR_STDOUT, STDERR: api.FILE_DESCRIPTOR_STDERR}
# More than the SDK ever asks for (modal 1.6.4, `_logs.py` _FETCH_LIMIT).
_MOST_ENTRIES = 20_000


_Request = api.AppFetchLogsRequest | api.AppCountLogsRequest | api.AppGetLogsRequest


def _entry_number(entry_id: str) -> int:
    try:
        return int(entry_id or 0)
    except ValueError:
        raise invalid(f"'{entry_id}' is not an entry id") from None


class _Filter:
    """The entries that a request asks for. `descriptor` 0 means both streams."""

    def __init__(self, source: int, search_text: str = "") -> None:
        self.descriptor = int(source)
        self.text = search_text

    def matches(self, span: Span) -> bool:
        return self.descriptor in (0, _DESCRIPTORS[span.descriptor])

    def lines(self, log: SandboxLog, span: Span) -> list[str]:
        return [line for line in log.lines(span) if self.text in line]

    def first_of_newest(self, log: SandboxLog, first: int, last: int, newest: int) -> int:
        """Return the number of the first span to read for the `newest` entries before `last`."""
        if self.text:
            return first
        entries = 0
        while last > first and entries < newest:
            block = max(first, last - 512)
            spans = log.spans(block, last)
            entries += sum(span.entries for span in spans if self.matches(span))
            last = block
        return last


_Logs = list[tuple[SandboxRecord, SandboxLog]]


def _batch(record: SandboxRecord, span: Span, lines: list[str]) -> api.TaskLogsBatch:
    items = [
        api.TaskLogs(
            data=line,
            file_descriptor=_DESCRIPTORS[span.descriptor],
            timestamp=span.time_ns / 1e9,
            timestamp_ns=span.time_ns,
        )
        for line in lines
    ]
    return api.TaskLogsBatch(
        task_id=record.task_id, sandbox_id=record.id, items=items, entry_id=str(span.time_ns)
    )


@dataclass(frozen=True)
class LogRpcs:
    """The RPCs about logs."""

    _store: Store
    _logs: LogStore
    _apps: Apps
    _images: Images
    _sandboxes: Sandboxes
    _faults: Faults

    def _newest(self) -> int:
        """Return the moment up to which the history has entries, in nanoseconds since 1970."""
        return self._store.clock.now_ns() - int(self._faults.script.lags.history * 1e9)

    @rpc("SandboxGetLogs")
    async def stream_sandbox(
        self, request: api.SandboxGetLogsRequest
    ) -> AsyncIterator[api.TaskLogsBatch]:
        descriptor = STDERR if request.file_descriptor == _DESCRIPTORS[STDERR] else STDOUT
        record = self._sandboxes.find(request.sandbox_id)
        offset = _entry_number(request.last_entry_id)
        deadline = time.monotonic() + request.timeout
        with self._logs.reading(record.id) as log:
            while True:
                data = log.read(descriptor, offset, CHUNK)
                size = len(data) if log.complete and len(data) < CHUNK else whole_characters(data)
                if size:
                    offset += size
                    text = data[:size].decode("utf-8", "replace")
                    item = api.TaskLogs(data=text, file_descriptor=_DESCRIPTORS[descriptor])
                    yield api.TaskLogsBatch(
                        task_id=record.task_id, items=[item], entry_id=str(offset)
                    )
                elif log.complete:
                    yield api.TaskLogsBatch(task_id=record.task_id, entry_id=str(offset), eof=True)
                    return
                elif not await log.changed.wait(max(0.0, deadline - time.monotonic())):
                    return

    def _records(self, request: _Request, since_ns: int, until: float) -> list[SandboxRecord]:
        """Return the sandboxes that a request names. Raises GRPCError (NOT_FOUND)."""
        if request.sandbox_id:
            return [self._sandboxes.find(request.sandbox_id)]
        if request.task_id:
            return [self._sandboxes.of_task(request.task_id)]
        self._apps.get(request.app_id)
        return self._store.sandboxes_of_app(request.app_id, since_ns / 1e9, until)

    @contextmanager
    def _opened(self, records: list[SandboxRecord]) -> Iterator[_Logs]:
        with ExitStack() as stack:
            yield [
                (record, stack.enter_context(self._logs.reading(record.id)))
                for record in records
                if self._logs.has(record.id)
            ]

    @staticmethod
    def _spans(
        logs: _Logs, since_ns: int, until_ns: int, chosen: _Filter, newest: int = 0
    ) -> Iterator[tuple[Span, SandboxRecord, SandboxLog]]:
        """Yield the spans of several sandboxes between two times, oldest first.

        With `newest`, spans that precede that many entries may be left out.
        """

        def spans(
            record: SandboxRecord, log: SandboxLog
        ) -> Iterator[tuple[Span, SandboxRecord, SandboxLog]]:
            first, last = log.first_after(since_ns - 1), log.first_after(until_ns - 1)
            if newest:
                first = chosen.first_of_newest(log, first, last, newest)
            for span in log.spans(first, last):
                if chosen.matches(span):
                    yield span, record, log

        return heapq.merge(*(spans(*pair) for pair in logs), key=lambda entry: entry[0].time_ns)

    @rpc("AppFetchLogs")
    async def fetch(self, request: api.AppFetchLogsRequest) -> api.AppFetchLogsResponse:
        if request.task_id.startswith(BUILD_TASK):
            newest = request.limit or _MOST_ENTRIES
            return api.AppFetchLogsResponse(batches=self._images.build_log(request.task_id, newest))
        since, until = request.since.ToNanoseconds(), request.until.ToNanoseconds()
        until = min(until, self._newest())
        limit = min(request.limit or _MOST_ENTRIES, _MOST_ENTRIES)
        chosen = _Filter(request.source, request.search_text)
        batches: list[api.TaskLogsBatch] = []
        with self._opened(self._records(request, since, until / 1e9)) as logs:
            # The limit keeps the newest entries.
            spans = list(self._spans(logs, since, until, chosen, newest=limit))
            for span, record, log in reversed(spans):
                if limit <= 0:
                    break
                lines = chosen.lines(log, span)[-limit:]
                limit -= len(lines)
                if lines:
                    batches.append(_batch(record, span, lines))
        return api.AppFetchLogsResponse(batches=reversed(batches))

    @rpc("AppCountLogs")
    async def count(self, request: api.AppCountLogsRequest) -> api.AppCountLogsResponse:
        if request.task_id.startswith(BUILD_TASK):
            batches = self._images.build_log(request.task_id, _MOST_ENTRIES)
            lines = sum(len(batch.items) for batch in batches)
            bucket = api.AppCountLogsResponse.LogBucket(
                bucket_start_at=request.since, stdout_logs=lines
            )
            return api.AppCountLogsResponse(app_id=request.app_id, buckets=[bucket])
        since, until = request.since.ToNanoseconds(), request.until.ToNanoseconds()
        width = (request.bucket_secs or 60) * 10**9
        chosen = _Filter(request.source, request.search_text)
        counts: Counter[tuple[int, int]] = Counter()
        with self._opened(self._records(request, since, until / 1e9)) as logs:
            settled = min(until, self._newest())
            for number, (span, _, log) in enumerate(self._spans(logs, since, settled, chosen)):
                if number % 1000 == 999:
                    # Give other calls a turn.
                    await asyncio.sleep(0)
                entries = len(chosen.lines(log, span)) if chosen.text else span.entries
                counts[span.time_ns // width, span.descriptor] += entries
        buckets = [
            api.AppCountLogsResponse.LogBucket(
                bucket_start_at=Timestamp(seconds=number * width // 10**9),
                stdout_logs=counts[number, STDOUT],
                stderr_logs=counts[number, STDERR],
            )
            for number in range(since // width, math.ceil(until / width))
        ]
        return api.AppCountLogsResponse(app_id=request.app_id, buckets=buckets)

    @rpc("AppGetLogs")
    async def follow(self, request: api.AppGetLogsRequest) -> AsyncIterator[api.TaskLogsBatch]:
        """Stream the output of running sandboxes, or all entries after `last_entry_id`."""
        deadline = time.monotonic() + request.timeout
        chosen = _Filter(request.file_descriptor, request.search_text)
        seen = _entry_number(request.last_entry_id)
        if not seen:
            running = self._records(request, time.time_ns(), math.inf)
            started = [record.created_at for record in running]
            seen = int(min(started, default=time.time()) * 1e9) - 1000
        while True:
            version = self._logs.changed.version
            # One clock gives the ids of all entries, so one number is enough to resume.
            records = self._records(request, seen, math.inf)
            with self._opened(records) as logs:
                for span, record, log in self._spans(logs, seen + 1, 2**63, chosen):
                    if lines := chosen.lines(log, span):
                        yield _batch(record, span, lines)
                    seen = span.time_ns
            if self._logs.changed.version != version:
                # More entries arrived while the last ones were sent.
                continue
            if self._is_over(request, records):
                yield api.TaskLogsBatch(app_done=True, entry_id=str(seen))
                return
            if not await self._logs.changed.wait(max(0.0, deadline - time.monotonic())):
                return

    def _is_over(self, request: api.AppGetLogsRequest, records: list[SandboxRecord]) -> bool:
        """Return whether the request's sandbox, or its app with all sandboxes, has finished."""
        if any(self._sandboxes.live(record.id) for record in records):
            return False
        if request.task_id or request.sandbox_id:
            return True
        return self._apps.is_stopped(self._apps.get(request.app_id))
