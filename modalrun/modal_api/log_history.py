"""Read the output of sandboxes that Modal has stored, in order of time and in bounded memory.

`sb.logs.fetch` (modal 1.6.4, `modal/_logs.py`) refuses a range in which more than 20,000 entries
fall into two seconds, and holds all of a range in memory. So it is called for one period of time
after the other: longer ones while they hold little, and shorter ones where they hold much.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from modalrun.errors import ConnectionLostError, ModalrunError
from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import translated
from modalrun.modal_api.log_buffer import STREAMS, Buffer, OutputChunk
from modalrun.modal_api.sandbox_handles import Patience, SandboxHandles
from modalrun.modal_api.sdk_internals import exit_of, sdk_loop
from modalrun.run.event_proof import END
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.util.backoff import pauses

if TYPE_CHECKING:
    from modal.types import LogEntry

_LONGEST_LIFE = 24 * 3600.0 + 600
"""Seconds that a sandbox can last at most (Modal's limit), and a little more."""

_CLOCK_ERROR = 26 * 3600.0
"""Seconds by which the clocks of Modal, of ZenML and of this machine may differ: even the wrong
time zone or day loses no lines."""

_FIRST_PERIOD = 300.0
_SHORTEST_PERIOD = 0.001
_LONGEST_PERIOD = 30 * 24 * 3600.0
_FEW = 2_000
_MANY = 20_000
_ROUNDING = timedelta(microseconds=3)

SETTLE_SECONDS = 10.0
"""How long a history is asked again after an end. Modal stores lines some time after it streams
them; how long, is not documented."""

QUIET_SECONDS = 3.0
"""The same, once nothing comes and nothing says that more must come."""

_SETTLE_PAUSE, _LONGEST_SETTLE_PAUSE = 0.1, 1.0
_RESOLUTION = timedelta(microseconds=1)
"""Of the SDK's times."""

_BATCH = 500
"""Entries that are passed to the reader's thread at a time."""


async def fetch_entries(
    handles: SandboxHandles,
    sandbox: str,
    since: float | None,
    until: float | None = None,
    *,
    source: str | None = None,
    settle: bool = False,
) -> AsyncGenerator[list[LogEntry], None]:
    """Yield the stored entries of a sandbox between two moments, oldest first, in batches.

    A lost connection is renewed, and nothing is lost or comes twice. Call this in the SDK's event
    loop.

    Args:
        handles: The handles of sandboxes.
        sandbox: Modal's id of the sandbox.
        since: Seconds since the epoch; None for the earliest start of a sandbox that still runs.
        until: Seconds since the epoch; None for now.
        source: "stdout", "stderr" or "system"; None for all.
        settle: Whether to ask again for what Modal stores only now, until each stream has its last
            line (`event_proof.END`), or nothing has come for some seconds.

    Raises:
        ModalrunError: Modal can't be asked, not even after a minute.
        modal.exception.LogsFetchError: One moment has more entries than Modal returns.
    """
    end = (time.time() if until is None else until) + _CLOCK_ERROR
    begin = (time.time() - _LONGEST_LIFE if since is None else since) - _CLOCK_ERROR
    unfinished: set[str] = {source} if source is not None else set(STREAMS)
    until_quiet = until_settled = 0.0
    waits = pauses(_SETTLE_PAUSE, _LONGEST_SETTLE_PAUSE)
    while True:
        came = False
        async with aclosing(_fetch_once(handles, sandbox, (begin, end), source)) as batches:
            async for entries in batches:
                came = True
                begin = (entries[-1].timestamp + _RESOLUTION).timestamp()
                for entry in entries:
                    if END in entry.message:
                        unfinished.discard(entry.source)
                    elif entry.source in STREAMS:
                        unfinished.add(entry.source)
                yield entries
        if not settle or not unfinished:
            return
        now = time.monotonic()
        if not until_settled:
            quiet = await _quiet_seconds(handles, sandbox)
            until_settled = now + SETTLE_SECONDS
        if came or not until_quiet:
            until_quiet = now + quiet
        if now > min(until_quiet, until_settled):
            return
        await asyncio.sleep(next(waits))


async def _quiet_seconds(handles: SandboxHandles, sandbox: str) -> float:
    """Return how long nothing may come before a history counts as complete."""
    end = None
    with contextlib.suppress(ModalrunError):
        end = await _end_of(await handles.get(sandbox))
    if end is not None and end.kind is ExitKind.NOT_STARTED:
        # It has printed nothing.
        return 0.0
    # Who ends by itself has written a last line.
    lost = end is not None and (end.killed or end.kind is ExitKind.TIMED_OUT)
    return QUIET_SECONDS if lost else SETTLE_SECONDS


async def _end_of(sandbox: Any) -> SandboxExit | None:
    """Return the end of an inner sandbox; None if it runs, or Modal can't be asked."""
    with contextlib.suppress(ModalrunError), translated():
        await sandbox.poll()
    return exit_of(sandbox)


async def _fetch_once(
    handles: SandboxHandles, sandbox: str, between: tuple[float, float], source: str | None
) -> AsyncGenerator[list[LogEntry], None]:
    """Yield the entries between two moments that Modal has stored by now."""
    from modal.exception import LogsFetchError

    patience = Patience()
    begin, end = between
    period = _CLOCK_ERROR + _FIRST_PERIOD
    while begin < end:
        stop = min(end, begin + period)
        entries: list[LogEntry] = []
        handle = None
        try:
            handle = await handles.get(sandbox)
            with translated():
                fetched = handle.logs.fetch(
                    since=_moment(begin), until=_moment(stop), source=source
                )
                async with aclosing(fetched):
                    async for entry in fetched:
                        if len(entries) >= _MANY and (moment := _between(entries[-1], entry)):
                            stop = moment
                            break
                        entries.append(entry)
        except LogsFetchError:
            if period <= _SHORTEST_PERIOD:
                raise
            period /= 8
            continue
        except ConnectionLostError as error:
            end_of_it = await _end_of(handle) if handle is not None else None
            if end_of_it is not None and end_of_it.kind is ExitKind.NOT_STARTED:
                # It never had a task, which the SDK asks the history about.
                return
            patience.note_failure(error)
            await patience.pause()
            await handles.renew(sandbox, handle)
            continue
        patience.reset()
        begin = stop
        if len(entries) < _FEW:
            period = min(_LONGEST_PERIOD, period * 4)
        if entries:
            yield entries


def _between(earlier: LogEntry, later: LogEntry) -> float | None:
    """Return a moment between two entries; None if they are too close: the SDK rounds times."""
    half = (later.timestamp - earlier.timestamp) / 2
    if half < _ROUNDING:
        return None
    return (earlier.timestamp + half).timestamp()


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


class _SandboxHistory:
    """The stored entries of one sandbox, fetched one period ahead of the merge."""

    def __init__(self, number: int, sandbox: str) -> None:
        self.number = number
        self.sandbox = sandbox
        self.error: Exception | None = None
        self.fetched: asyncio.Queue[list[LogEntry] | None] = asyncio.Queue(maxsize=1)
        self._current: Iterator[LogEntry] = iter(())

    async def next(self) -> tuple[float, int, LogEntry] | None:
        """Return the next entry with its sort key; None at the end."""
        while True:
            for entry in self._current:
                return entry.timestamp.timestamp(), self.number, entry
            entries = await self.fetched.get()
            if entries is None:
                return None
            self._current = iter(entries)


class History:
    """The stored output of several sandboxes, merged in order of time. Iterate over it once.

    Attributes:
        errors: What can't be read: the error, by the sandbox's id.
        sizes: The bytes of each stream that were read, by the sandbox's id.
    """

    def __init__(
        self,
        connection: Connection,
        run_id: str,
        discover: Callable[[str, str], Iterable[tuple[str, float]]],
    ) -> None:
        """
        Args:
            connection: To the sandboxes.
            run_id: The run that they belong to.
            discover: Called with a sandbox and each of its stored texts, in the SDK's thread and
                ahead of the reader. Returns the sandboxes that the text adds, with their start.
        """
        self.errors: dict[str, Exception] = {}
        self.sizes: dict[str, dict[str, int]] = {}
        self._handles = SandboxHandles(connection, run_id)
        self._discover = discover
        self._loop = sdk_loop()
        self._buffer: Buffer[list[OutputChunk] | None] = Buffer(self._loop)
        self._settle = False
        self._known: set[str] = set()
        self._histories: list[_SandboxHistory] = []
        self._added: list[_SandboxHistory] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def read(
        self,
        sandboxes: Iterable[str],
        since: float | None,
        until: float | None,
        *,
        settle: bool = False,
    ) -> Iterator[list[OutputChunk]]:
        """Yield the output of some sandboxes, and of those that it adds, in batches.

        Args:
            sandboxes: Modal's ids of the first ones.
            since: Seconds since the epoch; None for a day ago.
            until: Seconds since the epoch; None for now.
            settle: Whether to wait for what Modal stores only now.
        """
        self._settle = settle
        merging = asyncio.run_coroutine_threadsafe(self._merge(sandboxes, since, until), self._loop)
        try:
            while True:
                for batch in self._buffer.take():
                    if batch is None:
                        merging.result()
                        return
                    yield batch
        finally:
            self._buffer.close()
            merging.cancel()

    async def _merge(
        self, sandboxes: Iterable[str], since: float | None, until: float | None
    ) -> None:
        try:
            for sandbox in sandboxes:
                self._add(sandbox, since, until)
            heap: list[tuple[float, int, LogEntry]] = []
            batch: list[OutputChunk] = []
            size = 0
            while True:
                while self._added:
                    if (first := await self._added.pop().next()) is not None:
                        heapq.heappush(heap, first)
                if not heap:
                    break
                moment, number, entry = heap[0]
                history = self._histories[number]
                sizes = self.sizes.setdefault(history.sandbox, {})
                sizes[entry.source] = sizes.get(entry.source, 0) + len(entry.message.encode())
                batch.append(OutputChunk(history.sandbox, entry.source, entry.message, time=moment))
                size += len(entry.message)
                if len(batch) >= _BATCH or size > _BATCH * 200:
                    await self._buffer.put(batch, size)
                    batch, size = [], 0
                if (following := await history.next()) is None:
                    heapq.heappop(heap)
                else:
                    heapq.heapreplace(heap, following)
            if batch:
                await self._buffer.put(batch, size)
            self.errors = {h.sandbox: h.error for h in self._histories if h.error is not None}
        finally:
            for task in self._tasks:
                task.cancel()
            await self._buffer.put(None, 0)

    def _add(self, sandbox: str, since: float | None, until: float | None) -> None:
        if sandbox in self._known:
            return
        self._known.add(sandbox)
        history = _SandboxHistory(len(self._histories), sandbox)
        self._histories.append(history)
        self._added.append(history)
        self._tasks.add(asyncio.ensure_future(self._fetch(history, since, until)))

    async def _fetch(
        self, history: _SandboxHistory, since: float | None, until: float | None
    ) -> None:
        try:
            entries_of = fetch_entries(
                self._handles, history.sandbox, since, until, settle=self._settle
            )
            async with aclosing(entries_of) as batches:
                async for entries in batches:
                    for entry in entries:
                        for other, begin in self._discover(history.sandbox, entry.message):
                            self._add(other, begin, until)
                    await history.fetched.put(entries)
        except Exception as error:
            history.error = error
        await history.fetched.put(None)
