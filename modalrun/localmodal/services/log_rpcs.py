"""Logs: the live streams of V1 sandboxes, the history of sandboxes and apps, following an app.

An entry of the history is a line. V1 entry ids are byte offsets, an app's entry ids are times in
nanoseconds; both survive a restart of the server, so a client can go on where it was.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator

from google.protobuf.timestamp_pb2 import Timestamp
from modal_proto import api_pb2

from modalrun.localmodal.sandbox.sandboxes import Sandboxes
from modalrun.localmodal.server.rpc import Call, invalid, rpc
from modalrun.localmodal.services.apps import Apps
from modalrun.localmodal.services.command_router import CHUNK
from modalrun.localmodal.services.images import BUILD_TASK, Images
from modalrun.localmodal.storage.logstore import (
    STDERR,
    STDOUT,
    LogStore,
    SandboxLog,
    Span,
    whole_characters,
)
from modalrun.localmodal.storage.store import SandboxRecord, Store

_DESCRIPTORS = {
    STDOUT: api_pb2.FILE_DESCRIPTOR_STDOUT,
    STDERR: api_pb2.FILE_DESCRIPTOR_STDERR,
}
# More than the SDK ever asks for (modal 1.6.4, `_logs.py` _FETCH_LIMIT).
_MOST_ENTRIES = 20_000


def _nanoseconds(stamp: Timestamp) -> int:
    return int(stamp.seconds * 10**9 + stamp.nanos)


class Filter:
    """Which entries a request asks for. `descriptor` 0 means both streams."""

    def __init__(self, source: int, search_text: str = "") -> None:
        self.descriptor = int(source)
        self.text = search_text

    def takes(self, span: Span) -> bool:
        return self.descriptor in (0, _DESCRIPTORS[span.descriptor])

    def lines(self, log: SandboxLog, span: Span) -> list[str]:
        return [line for line in log.lines(span) if self.text in line]

    def first_of_newest(self, log: SandboxLog, first: int, last: int, newest: int) -> int:
        """Where to begin among the spans `first` to `last` so as to see the newest entries."""
        if self.text:
            return first
        entries = 0
        while last > first and entries < newest:
            block = max(first, last - 512)
            spans = log.spans(block, last)
            entries += sum(span.entries for span in spans if self.takes(span))
            last = block
        return last


def _items(span: Span, lines: list[str]) -> list[api_pb2.TaskLogs]:
    return [
        api_pb2.TaskLogs(
            data=line,
            file_descriptor=_DESCRIPTORS[span.descriptor],
            timestamp=span.time_ns / 1e9,
            timestamp_ns=span.time_ns,
        )
        for line in lines
    ]


class LogRpcs:
    """The RPCs about logs."""

    def __init__(
        self, store: Store, logs: LogStore, apps: Apps, images: Images, sandboxes: Sandboxes
    ) -> None:
        self._store = store
        self._logs = logs
        self._apps = apps
        self._images = images
        self._sandboxes = sandboxes

    @rpc("SandboxGetLogs")
    async def stream_sandbox(
        self, request: api_pb2.SandboxGetLogsRequest, call: Call
    ) -> AsyncIterator[api_pb2.TaskLogsBatch]:
        descriptor = STDERR if request.file_descriptor == _DESCRIPTORS[STDERR] else STDOUT
        record = self._sandboxes.find(request.sandbox_id)
        try:
            offset = int(request.last_entry_id or 0)
        except ValueError:
            raise invalid(f"'{request.last_entry_id}' is not an entry id") from None
        deadline = time.monotonic() + request.timeout
        log = self._logs.acquire(record.id)
        try:
            while True:
                data = log.read(descriptor, offset, CHUNK)
                size = len(data) if log.complete and len(data) < CHUNK else whole_characters(data)
                if size:
                    offset += size
                    text = data[:size].decode("utf-8", "replace")
                    item = api_pb2.TaskLogs(data=text, file_descriptor=_DESCRIPTORS[descriptor])
                    yield api_pb2.TaskLogsBatch(
                        task_id=record.task_id, items=[item], entry_id=str(offset)
                    )
                elif log.complete:
                    yield api_pb2.TaskLogsBatch(
                        task_id=record.task_id, entry_id=str(offset), eof=True
                    )
                    return
                elif not await log.changed.wait(max(0.0, deadline - time.monotonic())):
                    return
        finally:
            self._logs.release(record.id)

    def _records(
        self, app_id: str, task_id: str, sandbox_id: str, since: float, until: float
    ) -> list[SandboxRecord]:
        """The sandboxes that a request is about. Raises RpcError (NOT_FOUND)."""
        if sandbox_id:
            return [self._sandboxes.find(sandbox_id)]
        if task_id:
            return [self._sandboxes.of_task(task_id)]
        self._apps.get(app_id)
        return self._store.sandboxes_of_app(app_id, since, until)

    def _spans(
        self,
        logs: dict[str, SandboxLog],
        since_ns: int,
        until_ns: int,
        wanted: Filter,
        newest: int = 0,
    ) -> Iterator[tuple[Span, str]]:
        """Spans of several sandboxes between two times, in the order of time.

        With `newest`, spans may be left out of which it is clear that that many entries come later.
        """

        def of(sandbox_id: str, log: SandboxLog) -> Iterator[tuple[int, Span, str]]:
            first, last = log.first_after(since_ns - 1), log.first_after(until_ns - 1)
            if newest:
                first = wanted.first_of_newest(log, first, last, newest)
            for span in log.spans(first, last):
                if wanted.takes(span):
                    yield span.time_ns, span, sandbox_id

        merged = heapq.merge(*(of(*pair) for pair in logs.items()), key=lambda entry: entry[0])
        return ((span, sandbox_id) for _, span, sandbox_id in merged)

    @rpc("AppFetchLogs")
    async def fetch(
        self, request: api_pb2.AppFetchLogsRequest, call: Call
    ) -> api_pb2.AppFetchLogsResponse:
        if request.task_id.startswith(BUILD_TASK):
            newest = request.limit or _MOST_ENTRIES
            return api_pb2.AppFetchLogsResponse(
                batches=self._images.build_log(request.task_id, newest)
            )
        since, until = _nanoseconds(request.since), _nanoseconds(request.until)
        limit = min(request.limit or _MOST_ENTRIES, _MOST_ENTRIES)
        wanted = Filter(request.source, request.search_text)
        records = {
            record.id: record
            for record in self._records(
                request.app_id, request.task_id, request.sandbox_id, since / 1e9, until / 1e9
            )
        }
        logs = self._acquire(records)
        try:
            # The newest entries win.
            spans = list(self._spans(logs, since, until, wanted, newest=limit))
            batches: list[api_pb2.TaskLogsBatch] = []
            for span, sandbox_id in reversed(spans):
                if limit <= 0:
                    break
                lines = wanted.lines(logs[sandbox_id], span)[-limit:]
                limit -= len(lines)
                if lines:
                    batches.append(self._batch(records[sandbox_id], span, lines))
        finally:
            self._release(logs)
        return api_pb2.AppFetchLogsResponse(batches=reversed(batches))

    def _batch(self, record: SandboxRecord, span: Span, lines: list[str]) -> api_pb2.TaskLogsBatch:
        return api_pb2.TaskLogsBatch(
            task_id=record.task_id,
            sandbox_id=record.id,
            items=_items(span, lines),
            entry_id=str(span.time_ns),
        )

    def _acquire(self, records: dict[str, SandboxRecord]) -> dict[str, SandboxLog]:
        known = (sandbox_id for sandbox_id in records if self._logs.has(sandbox_id))
        return {sandbox_id: self._logs.acquire(sandbox_id) for sandbox_id in known}

    def _release(self, logs: dict[str, SandboxLog]) -> None:
        for sandbox_id in logs:
            self._logs.release(sandbox_id)

    @rpc("AppCountLogs")
    async def count(
        self, request: api_pb2.AppCountLogsRequest, call: Call
    ) -> api_pb2.AppCountLogsResponse:
        since, until = _nanoseconds(request.since), _nanoseconds(request.until)
        width = (request.bucket_secs or 60) * 10**9
        wanted = Filter(request.source, request.search_text)
        records = {
            record.id: record
            for record in self._records(
                request.app_id, request.task_id, request.sandbox_id, since / 1e9, until / 1e9
            )
        }
        counts: Counter[tuple[int, int]] = Counter()
        logs = self._acquire(records)
        try:
            for number, (span, sandbox_id) in enumerate(self._spans(logs, since, until, wanted)):
                if number % 1000 == 999:
                    # Others want to go on too.
                    await asyncio.sleep(0)
                entries = span.entries
                if wanted.text:
                    entries = len(wanted.lines(logs[sandbox_id], span))
                counts[span.time_ns // width, span.descriptor] += entries
        finally:
            self._release(logs)
        buckets = [
            api_pb2.AppCountLogsResponse.LogBucket(
                bucket_start_at=Timestamp(seconds=number * width // 10**9),
                stdout_logs=counts[number, STDOUT],
                stderr_logs=counts[number, STDERR],
            )
            for number in range(since // width, math.ceil(until / width))
        ]
        return api_pb2.AppCountLogsResponse(app_id=request.app_id, buckets=buckets)

    @rpc("AppGetLogs")
    async def follow(
        self, request: api_pb2.AppGetLogsRequest, call: Call
    ) -> AsyncIterator[api_pb2.TaskLogsBatch]:
        """What running sandboxes have written, then what comes; from an entry id on, all since."""
        deadline = time.monotonic() + request.timeout
        wanted = Filter(request.file_descriptor)
        try:
            seen = int(request.last_entry_id or 0)
        except ValueError:
            raise invalid(f"'{request.last_entry_id}' is not an entry id") from None
        if not seen:
            running = self._records(
                request.app_id, request.task_id, request.sandbox_id, time.time(), math.inf
            )
            started = [record.created_at for record in running]
            seen = int(min(started, default=time.time()) * 1e9) - 1000
        while True:
            version = self._logs.changed.version
            # The ids of all sandboxes' entries come from one clock, so one number says it all.
            records = {
                record.id: record
                for record in self._records(
                    request.app_id, request.task_id, request.sandbox_id, seen / 1e9, math.inf
                )
            }
            logs = self._acquire(records)
            try:
                for span, sandbox_id in self._spans(logs, seen + 1, 2**63, wanted):
                    lines = wanted.lines(logs[sandbox_id], span)
                    yield self._batch(records[sandbox_id], span, lines)
                    seen = span.time_ns
            finally:
                self._release(logs)
            if self._logs.changed.version != version:
                # More came while the last entries were being sent.
                continue
            if self._is_over(request, records):
                yield api_pb2.TaskLogsBatch(app_done=True, entry_id=str(seen))
                return
            if not await self._logs.changed.wait(max(0.0, deadline - time.monotonic())):
                return

    def _is_over(
        self, request: api_pb2.AppGetLogsRequest, records: dict[str, SandboxRecord]
    ) -> bool:
        """Whether nothing more can come: the sandbox has finished, or the app and all in it."""
        if any(self._sandboxes.live(sandbox_id) for sandbox_id in records):
            return False
        if request.task_id or request.sandbox_id:
            return True
        return self._apps.is_stopped(self._apps.get(request.app_id))
