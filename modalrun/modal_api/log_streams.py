"""The output of many sandboxes as it comes: every piece once, in bounded memory.

All streams are read in the SDK's own event loop, and cross into the reader's thread in batches: the
more there is, the larger. A stream whose connection breaks goes on at the very byte where it was.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

from modalrun.errors import ConnectionLostError, ModalrunError, NotFoundError
from modalrun.modal_api import log_history
from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import breaks_off, translated
from modalrun.modal_api.log_buffer import Buffer, Ended, Piece
from modalrun.modal_api.sdk_internals import inner, sandbox_from_id, sdk_loop
from modalrun.modal_api.stdio import SOURCES, Gap, Place, Source, read
from modalrun.util.backoff import pauses

RECONNECT_SECONDS = 60.0
"""How long a lost connection to a running sandbox is tried again before giving up."""

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0

SANDBOXES_PER_CLIENT = 40
"""One connection carries about 100 streams (HTTP/2's usual limit), of which a sandbox takes two."""


_RELEASED = Ended("", "")
"""Takes the place of a stream's end where nothing was read."""


class Streams:
    """The live streams of any number of sandboxes, as one.

    Iterate over it in any thread; `add` and `close` may be called from any other.
    """

    def __init__(self, connection: Connection) -> None:
        """
        Args:
            connection: Is also what is connected anew when it breaks.
        """
        self._connection = connection
        self._loop = sdk_loop()
        self._buffer: Buffer[Piece | Ended] = Buffer(self._loop)
        self._handles = _Handles(connection)
        self._open = 0
        self._lock = threading.Lock()
        self._futures: set[concurrent.futures.Future[None]] = set()

    def add(
        self,
        sandbox: str,
        sources: Sequence[Source] = SOURCES,
        *,
        skip: Mapping[Source, int] | None = None,
    ) -> None:
        """Begin to read a sandbox, running or finished, from its first byte on.

        Args:
            sandbox: Modal's id.
            sources: Which of its streams.
            skip: Bytes of each that are known already and not to come again.
        """
        for source in sources:
            known = (skip or {}).get(source, 0)
            with self._lock:
                self._open += 1
            future = asyncio.run_coroutine_threadsafe(
                self._follow(sandbox, source, known), self._loop
            )
            self._futures.add(future)

    def __iter__(self) -> Iterator[list[Piece | Ended]]:
        """Batches of what has come, until every stream that was added has ended.

        A stream that can't be read for `RECONNECT_SECONDS` ends with an error.
        """
        while True:
            with self._lock:
                if not self._open:
                    return
            batch = self._buffer.take()
            if not batch:
                return
            if items := [item for item in batch if item is not _RELEASED]:
                yield items
            # After the reader has had its turn: it may have added more in answer to the last one.
            with self._lock:
                self._open -= sum(isinstance(item, Ended) for item in batch)

    def hold(self) -> None:
        """Keep the iteration waiting until `release`, also when all streams have ended."""
        with self._lock:
            self._open += 1

    def release(self) -> None:
        """Take back a `hold`."""
        asyncio.run_coroutine_threadsafe(self._buffer.put(_RELEASED, 0), self._loop)

    def close(self) -> None:
        """Read nothing more; the iteration ends."""
        self._buffer.close()
        for future in list(self._futures):
            future.cancel()

    async def _follow(self, sandbox_id: str, source: Source, known: int) -> None:
        place = Place(offset=known, skip=known)
        error: ModalrunError | None = None
        try:
            await self._read_to_the_end(sandbox_id, source, place)
            if rest := place.decoder.decode(b"", True):
                await self._buffer.put(Piece(sandbox_id, source, rest), len(rest))
        except ModalrunError as caught:
            error = caught
        except Exception as caught:
            error = ConnectionLostError(f"The output of {sandbox_id} can't be read: {caught!r}")
            error.__cause__ = caught
        await self._buffer.put(Ended(sandbox_id, source, error), 0)

    async def _read_to_the_end(self, sandbox_id: str, source: Source, place: Place) -> None:
        failing_since: float | None = None
        waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while not place.ended:
            before, handle = (place.offset, place.entry), None
            try:
                handle = await self._handles.get(sandbox_id)
                await self._read_on(handle, sandbox_id, source, place)
                failing_since = None
                if place.ended or (place.offset, place.entry) != before:
                    # The SDK's stream on the V1 backend may end before the sandbox's does.
                    waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
                    continue
            except ConnectionLostError:
                now = time.monotonic()
                if (place.offset, place.entry) != before or failing_since is None:
                    failing_since, waits = now, pauses(FIRST_PAUSE, LONGEST_PAUSE)
                elif now - failing_since > RECONNECT_SECONDS:
                    raise
            except (NotFoundError, UnicodeDecodeError, _GoneError):
                # Modal has put its worker's data away, or `sb.stdout` can't read on.
                if handle is None:
                    raise
                await self._restore(handle, sandbox_id, source, place, None)
                place.ended = True
                return
            await asyncio.sleep(next(waits))
            await self._handles.renew(sandbox_id, handle)

    async def _read_on(self, handle: Any, sandbox_id: str, source: Source, place: Place) -> None:
        with translated(), _lost():
            async with aclosing(read(handle, source, place)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Gap):
                        await self._restore(handle, sandbox_id, source, place, piece.end)
                        continue
                    text = place.decoder.decode(piece)
                    if text:
                        await self._buffer.put(Piece(sandbox_id, source, text), len(text))

    async def _restore(
        self, handle: Any, sandbox_id: str, source: Source, place: Place, end: int | None
    ) -> None:
        """Fill a gap from the history, as far as that has it. `end` is None for "to the end"."""
        rest = place.decoder.decode(b"", True)
        place.decoder.reset()
        missing = 0 if end is None else end - place.offset
        await self._buffer.put(Piece(sandbox_id, source, rest, missing=missing), len(rest))
        start = place.offset
        position = 0
        async with aclosing(log_history.slices(handle, None, source=source)) as entries:
            async for batch in entries:
                for entry in batch:
                    data = entry.message.encode()
                    fresh = data[max(0, start - position) :]
                    position += len(data)
                    if end is not None and position > end:
                        fresh = fresh[: max(0, len(fresh) - (position - end))]
                    if fresh:
                        text = fresh.decode("utf-8", "replace")
                        await self._buffer.put(Piece(sandbox_id, source, text), len(text))
                    if end is not None and position >= end:
                        return
        if end is not None:
            await self._buffer.put(Piece(sandbox_id, source, lost=end - max(start, position)), 0)


class _GoneError(Exception):
    """The worker that held a stream is gone."""


@contextmanager
def _lost() -> Iterator[None]:
    """Raise what a broken connection looks like beneath the SDK's surface as an OSError.

    `ConflictError` is the answer about a worker that a finished sandbox has left.
    """
    from grpclib.exceptions import ProtocolError, StreamTerminatedError
    from modal import exception as modal_errors

    try:
        yield
    except modal_errors.ConflictError as error:
        raise _GoneError(str(error)) from error
    except (
        StreamTerminatedError,
        ProtocolError,
        asyncio.TimeoutError,
        modal_errors.TimeoutError,
        OSError,
    ) as error:
        raise ConnectionResetError(str(error)) from error
    except AttributeError as error:
        if not breaks_off(error):
            raise
        raise ConnectionResetError("the connection broke") from error


class _Handles:
    """The SDK's inner sandboxes by id, each on one of several connections; used in its loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._clients: list[Any] = []
        self._sandboxes: dict[str, Any] = {}
        self._numbers: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._renewing = asyncio.Lock()

    async def get(self, sandbox_id: str) -> Any:
        """The handle of a sandbox, made if there is none. Raises ModalrunError."""
        number = self._numbers.setdefault(sandbox_id, len(self._numbers) // SANDBOXES_PER_CLIENT)
        async with self._locks.setdefault(sandbox_id, asyncio.Lock()):
            if sandbox_id not in self._sandboxes:
                client = await self._client(number)
                with translated(), _lost():
                    self._sandboxes[sandbox_id] = await sandbox_from_id(sandbox_id, client)
            return self._sandboxes[sandbox_id]

    async def _client(self, number: int) -> Any:
        async with self._renewing:
            if not self._clients:
                self._clients.append(inner(self._connection.client))
            while len(self._clients) <= number:
                self._clients.append(inner(await asyncio.to_thread(self._connection.new_client)))
            return self._clients[number]

    async def renew(self, sandbox_id: str, failed: Any) -> None:
        """Forget a handle that failed; where there was not even one, connect anew."""
        if failed is not None:
            if self._sandboxes.get(sandbox_id) is failed:
                del self._sandboxes[sandbox_id]
            return
        stale = list(self._clients)
        async with self._renewing:
            # Many streams lose the connection at the same moment; one of them makes the new one.
            if stale and self._clients == stale:
                try:
                    await asyncio.to_thread(self._connection.reconnect)
                except ConnectionLostError:
                    return
                self._clients.clear()
                self._sandboxes.clear()
