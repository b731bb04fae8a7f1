"""Stream the output of many sandboxes as it is written: every byte once, in bounded memory.

All streams are read in the SDK's own event loop and passed to the reader's thread in batches, which
grow with the amount of output. A stream whose connection breaks continues at the next byte.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

from modalrun.errors import ConnectionLostError, ModalrunError, NotFoundError
from modalrun.modal_api import log_history
from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import translated
from modalrun.modal_api.log_buffer import STREAMS, Buffer, OutputChunk, StreamEnd, StreamName
from modalrun.modal_api.sdk_internals import (
    MissingBytes,
    StreamPosition,
    inner,
    read,
    sandbox_from_id,
    sdk_loop,
)
from modalrun.util.backoff import pauses

RECONNECT_SECONDS = 60.0
"""How long a lost connection to a running sandbox is tried again before giving up."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0

SANDBOXES_PER_CLIENT = 40
"""One connection carries about 100 streams (HTTP/2's usual limit), and a sandbox has two."""

_RELEASED = StreamEnd("", "")
"""Stands for the end of a stream in the buffer when a hold is released."""

OutputBuffer = Buffer["OutputChunk | StreamEnd"]


class OutputStreams:
    """The live streams of any number of sandboxes, as one.

    Iterate over it in any thread; `add` and `close` may be called from any other.
    """

    def __init__(self, connection: Connection) -> None:
        """Prepare for the sandboxes of a connection, which is renewed when it breaks."""
        self._loop = sdk_loop()
        self._buffer: OutputBuffer = Buffer(self._loop)
        self._handles = _Handles(connection)
        self._open = 0
        self._lock = threading.Lock()
        self._futures: set[concurrent.futures.Future[None]] = set()

    def add(
        self,
        sandbox: str,
        *,
        skip: Mapping[StreamName, int] | None = None,
    ) -> None:
        """Start to read a sandbox, running or finished; leave out the first `skip` bytes."""
        for stream in STREAMS:
            with self._lock:
                self._open += 1
            reader = _StreamReader(
                self._handles, self._buffer, sandbox, stream, (skip or {}).get(stream, 0)
            )
            self._futures.add(asyncio.run_coroutine_threadsafe(reader.run(), self._loop))

    def __iter__(self) -> Iterator[list[OutputChunk | StreamEnd]]:
        """Yield batches of output until every stream that was added has ended.

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
            # Not before the reader has seen the batch: it may add streams because of it.
            with self._lock:
                self._open -= sum(isinstance(item, StreamEnd) for item in batch)

    def hold(self) -> None:
        """Keep the iteration waiting until `release`, even if all streams have ended."""
        with self._lock:
            self._open += 1

    def release(self) -> None:
        """Undo a `hold`."""
        asyncio.run_coroutine_threadsafe(self._buffer.put(_RELEASED, 0), self._loop)

    def close(self) -> None:
        """Stop reading; the iteration ends."""
        self._buffer.close()
        for future in list(self._futures):
            future.cancel()


class _StreamReader:
    """Reads one stream of a sandbox to its end; used in the SDK's event loop."""

    def __init__(
        self, handles: _Handles, buffer: OutputBuffer, sandbox: str, stream: StreamName, skip: int
    ) -> None:
        self._handles = handles
        self._buffer = buffer
        self._sandbox = sandbox
        self._stream = stream
        self._position = StreamPosition(offset=skip, skip=skip)

    async def run(self) -> None:
        """Put all chunks into the buffer, then the end of the stream."""
        error: ModalrunError | None = None
        try:
            await self._read_to_end()
            await self._put(self._position.decoder.decode(b"", True))
        except ModalrunError as caught:
            error = caught
        except Exception as caught:
            error = ConnectionLostError(f"The output of {self._sandbox} can't be read: {caught!r}")
            error.__cause__ = caught
        await self._buffer.put(StreamEnd(self._sandbox, self._stream, error), 0)

    async def _put(self, text: str, *, missing: int = 0, lost: int = 0) -> None:
        if text or missing or lost:
            chunk = OutputChunk(self._sandbox, self._stream, text, missing=missing, lost=lost)
            await self._buffer.put(chunk, len(text))

    async def _read_to_end(self) -> None:
        position = self._position
        failing_since: float | None = None
        waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while not position.ended:
            before, handle = (position.offset, position.entry), None
            try:
                handle = await self._handles.get(self._sandbox)
                await self._read(handle)
                failing_since = None
                if position.ended or (position.offset, position.entry) != before:
                    # The SDK's stream on the V1 backend may end before the sandbox's does.
                    waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
                    continue
            except ConnectionLostError:
                now = time.monotonic()
                if (position.offset, position.entry) != before or failing_since is None:
                    failing_since, waits = now, pauses(FIRST_PAUSE, LONGEST_PAUSE)
                elif now - failing_since > RECONNECT_SECONDS:
                    raise
            except (NotFoundError, UnicodeDecodeError, _WorkerGoneError):
                # Modal has removed the data from its worker, or `sb.stdout` can't read on.
                if handle is None:
                    raise
                await self._read_history(handle, None)
                position.ended = True
                return
            await asyncio.sleep(next(waits))
            await self._handles.renew(self._sandbox, handle)

    async def _read(self, handle: Any) -> None:
        with _stream_errors():
            async with aclosing(read(handle, self._stream, self._position)) as chunks:
                async for chunk in chunks:
                    if isinstance(chunk, MissingBytes):
                        await self._read_history(handle, chunk.end)
                    else:
                        await self._put(self._position.decoder.decode(chunk))

    async def _read_history(self, handle: Any, end: int | None) -> None:
        """Read from the position up to a byte, or to the end, in the history instead."""
        start, decoder = self._position.offset, self._position.decoder
        await self._put(decoder.decode(b"", True), missing=0 if end is None else end - start)
        decoder.reset()
        offset = 0
        batches = log_history.fetch_entries(handle, None, source=self._stream)
        async with aclosing(batches):
            async for batch in batches:
                for entry in batch:
                    data = entry.message.encode()
                    stop = len(data) if end is None else max(0, end - offset)
                    fresh = data[max(0, start - offset) : stop]
                    offset += len(data)
                    await self._put(fresh.decode("utf-8", "replace"))
                    if end is not None and offset >= end:
                        return
        if end is not None:
            await self._put("", lost=end - max(start, offset))


class _WorkerGoneError(Exception):
    """The worker that held a stream is gone."""


@contextmanager
def _stream_errors() -> Iterator[None]:
    """Translate the errors of calls beneath the SDK's public surface."""
    from modal import exception as modal_errors

    with translated():
        try:
            yield
        except modal_errors.ConflictError as error:
            # The answer about a worker that a finished sandbox has left.
            raise _WorkerGoneError(str(error)) from error
        except (modal_errors.TimeoutError, OSError) as error:
            raise ConnectionResetError(str(error)) from error


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
        """Return the handle of a sandbox. Raises ModalrunError."""
        number = self._numbers.setdefault(sandbox_id, len(self._numbers) // SANDBOXES_PER_CLIENT)
        async with self._locks.setdefault(sandbox_id, asyncio.Lock()):
            if sandbox_id not in self._sandboxes:
                client = await self._client(number)
                with _stream_errors():
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
        """Forget a handle that failed; if there was none, connect again."""
        if failed is not None:
            if self._sandboxes.get(sandbox_id) is failed:
                del self._sandboxes[sandbox_id]
            return
        stale = list(self._clients)
        async with self._renewing:
            # Many streams lose the connection at the same moment; one of them connects again.
            if stale and self._clients == stale:
                try:
                    await asyncio.to_thread(self._connection.reconnect)
                except ConnectionLostError:
                    return
                self._clients.clear()
                self._sandboxes.clear()
