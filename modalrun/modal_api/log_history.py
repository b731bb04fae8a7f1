"""What Modal has stored of a sandbox's output, in order of time and in bounded memory.

`sb.logs.fetch` (modal 1.6.4, `modal/_logs.py`) refuses a range in which more than 20,000 entries
fall into two seconds, and holds all of a range in memory; so it is asked for one stretch of time
after the other, as long as there is little in them and shorter where there is much.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import translated
from modalrun.modal_api.log_buffer import Buffer, Piece
from modalrun.modal_api.sdk_internals import inner, sandbox_from_id, sdk_loop

if TYPE_CHECKING:
    from modal.types import LogEntry

LONGEST_LIFE = 24 * 3600.0 + 600
"""Seconds that a sandbox can last at most (Modal's limit), and a little more."""

_FIRST_STRETCH = 300.0
_SHORTEST_STRETCH = 0.001
_LONGEST_STRETCH = 30 * 24 * 3600.0
_FEW = 2_000
_MANY = 20_000
_ROUNDING = timedelta(microseconds=3)


async def slices(
    sandbox: Any, since: float | None, until: float | None = None, *, source: str | None = None
) -> AsyncGenerator[list[LogEntry], None]:
    """The stored entries of a sandbox between two moments, oldest first.

    Args:
        sandbox: The SDK's inner sandbox; call this in the SDK's event loop.
        since: Seconds since the epoch; None for as long ago as it can have begun if it still runs.
        until: The same; None for now.
        source: "stdout", "stderr" or "system"; None for all.

    Raises:
        ModalrunError: Modal can't be asked.
        modal.exception.LogsFetchError: More entries at one moment than Modal gives.
    """
    from modal.exception import LogsFetchError

    end = time.time() + 1 if until is None else until
    begin = time.time() - LONGEST_LIFE if since is None else since
    stretch = _FIRST_STRETCH if since is not None else end - begin
    while begin < end:
        stop = min(end, begin + stretch)
        entries: list[LogEntry] = []
        try:
            with translated():
                fetched = sandbox.logs.fetch(
                    since=_moment(begin), until=_moment(stop), source=source
                )
                async with aclosing(fetched):
                    async for entry in fetched:
                        if len(entries) >= _MANY and (moment := _between(entries[-1], entry)):
                            stop = moment
                            break
                        entries.append(entry)
        except LogsFetchError:
            if stretch <= _SHORTEST_STRETCH:
                raise
            stretch /= 8
            continue
        begin = stop
        if len(entries) < _FEW:
            stretch = min(_LONGEST_STRETCH, stretch * 4)
        if entries:
            yield entries


def _between(earlier: LogEntry, later: LogEntry) -> float | None:
    """A moment that parts two entries for certain: the SDK rounds Modal's nanoseconds."""
    apart = (later.timestamp - earlier.timestamp) / 2
    if apart < _ROUNDING:
        return None
    return (earlier.timestamp + apart).timestamp()


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


_BATCH = 500
"""Entries that cross into the reader's thread at a time."""


class _Reel:
    """The stored entries of one sandbox, read one stretch ahead of those who merge them."""

    def __init__(self, number: int, sandbox: str) -> None:
        self.number = number
        self.sandbox = sandbox
        self.error: Exception | None = None
        self._stretches: asyncio.Queue[list[LogEntry] | None] = asyncio.Queue(maxsize=1)
        self._now: Iterator[LogEntry] = iter(())

    async def put(self, entries: list[LogEntry] | None) -> None:
        await self._stretches.put(entries)

    async def next(self) -> LogEntry | None:
        """The next entry; None at the end."""
        while True:
            for entry in self._now:
                return entry
            stretch = await self._stretches.get()
            if stretch is None:
                return None
            self._now = iter(stretch)


class History:
    """What Modal has stored of several sandboxes, merged in order of time. Iterate over it once."""

    def __init__(
        self, connection: Connection, discover: Callable[[str, str], Iterable[tuple[str, float]]]
    ) -> None:
        """
        Args:
            connection: Where the sandboxes are.
            discover: Is given each stored text with its sandbox, in the SDK's thread and ahead of
                the reader, and names the sandboxes that the text adds, with their first moment.
        """
        self._connection = connection
        self._discover = discover
        self._loop = sdk_loop()
        self._buffer: Buffer[list[Piece] | None] = Buffer(self._loop)
        self._reels: list[_Reel] = []
        self._fresh: list[_Reel] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.errors: dict[str, Exception] = {}
        self.sizes: dict[str, dict[str, int]] = {}

    def read(
        self, sandboxes: Iterable[str], since: float | None, until: float | None
    ) -> Iterator[list[Piece]]:
        """All pieces of some sandboxes and of those that they lead to, in batches.

        What can't be read of a sandbox stands in `errors`; `sizes` has the bytes of each stream.

        Args:
            sandboxes: Modal's ids of the first ones.
            since: Seconds since the epoch, from where on; None for a day ago.
            until: The same, up to where; None for now.
        """
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
            batch: list[Piece] = []
            size = 0
            while True:
                while self._fresh:
                    reel = self._fresh.pop()
                    if (entry := await reel.next()) is not None:
                        heapq.heappush(heap, (entry.timestamp.timestamp(), reel.number, entry))
                if not heap:
                    break
                moment, number, entry = heap[0]
                reel = self._reels[number]
                sizes = self.sizes.setdefault(reel.sandbox, {})
                sizes[entry.source] = sizes.get(entry.source, 0) + len(entry.message.encode())
                batch.append(Piece(reel.sandbox, entry.source, entry.message, time=moment))
                size += len(entry.message)
                if len(batch) >= _BATCH or size > _BATCH * 200:
                    await self._buffer.put(batch, size)
                    batch, size = [], 0
                following = await reel.next()
                if following is None:
                    heapq.heappop(heap)
                else:
                    later = (following.timestamp.timestamp(), number, following)
                    heapq.heapreplace(heap, later)
            if batch:
                await self._buffer.put(batch, size)
            self.errors = {r.sandbox: r.error for r in self._reels if r.error is not None}
        finally:
            for task in self._tasks:
                task.cancel()
            await self._buffer.put(None, 0)

    def _add(self, sandbox: str, since: float | None, until: float | None) -> None:
        if any(reel.sandbox == sandbox for reel in self._reels):
            return
        reel = _Reel(len(self._reels), sandbox)
        self._reels.append(reel)
        self._fresh.append(reel)
        self._tasks.add(asyncio.ensure_future(self._fill(reel, since, until)))

    async def _fill(self, reel: _Reel, since: float | None, until: float | None) -> None:
        try:
            with translated():
                sandbox = await sandbox_from_id(reel.sandbox, inner(self._connection.client))
            async with aclosing(slices(sandbox, since, until)) as stretches:
                async for entries in stretches:
                    for entry in entries:
                        for other, begin in self._discover(reel.sandbox, entry.message):
                            self._add(other, begin, until)
                    await reel.put(entries)
        except Exception as error:
            reel.error = error
        await reel.put(None)
