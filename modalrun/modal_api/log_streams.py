"""Stream the output of many sandboxes as it is written: every byte once, in bounded memory.

All streams are read in the SDK's own event loop and passed to the reader's thread in batches, which
grow with the amount of output. A stream whose connection breaks continues at the next byte.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from modalrun.errors import ConnectionLostError, ModalrunError, NotFoundError
from modalrun.modal_api import log_history
from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import WorkerGoneError, stream_errors
from modalrun.modal_api.log_buffer import STREAMS, Buffer, OutputChunk, StreamEnd, StreamName
from modalrun.modal_api.sandbox_handles import Patience, SandboxHandles
from modalrun.modal_api.sdk_internals import MissingBytes, StreamPosition, read, sdk_loop

_RELEASED = StreamEnd("", "")
"""Stands for the end of a stream in the buffer when a hold is released."""

OutputBuffer = Buffer["OutputChunk | StreamEnd"]


class OutputStreams:
    """The live streams of any number of sandboxes, as one.

    Iterate over it in any thread; `add` and `close` may be called from any other.
    """

    def __init__(self, connection: Connection, run_id: str) -> None:
        """Prepare for sandboxes of a run, on a connection that is renewed when it breaks."""
        self._loop = sdk_loop()
        self._buffer: OutputBuffer = Buffer(self._loop)
        self._handles = SandboxHandles(connection, run_id)
        self._open = 0
        self._lock = threading.Lock()
        self._futures: set[concurrent.futures.Future[None]] = set()

    def add(self, sandbox: str, *, skip: Mapping[StreamName, int] | None = None) -> None:
        """Start to read a sandbox, running or finished; leave out the first `skip` bytes."""
        for stream in STREAMS:
            with self._lock:
                self._open += 1
            skipped = (skip or {}).get(stream, 0)
            position = StreamPosition(offset=skipped, skip=skipped)
            reader = _StreamReader(self._handles, self._buffer, sandbox, stream, position)
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


@dataclass
class _StreamReader:
    """Reads one stream of a sandbox to its end; used in the SDK's event loop."""

    _handles: SandboxHandles
    _buffer: OutputBuffer
    _sandbox: str
    _stream: StreamName
    _position: StreamPosition

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
        patience, gone = Patience(), False
        while not position.ended:
            before, handle = (position.offset, position.entry), None
            try:
                handle = await self._handles.get(self._sandbox)
                if gone:
                    await _wait(handle)
                    await self._read_history(None)
                    position.ended = True
                    return
                await self._read(handle)
                if position.ended or (position.offset, position.entry) != before:
                    # The SDK's stream on the V1 backend may end before the sandbox's does.
                    patience.reset()
                    continue
            except ConnectionLostError as error:
                if (position.offset, position.entry) != before:
                    patience.reset()
                patience.note_failure(error)
            except (NotFoundError, UnicodeDecodeError, WorkerGoneError):
                # Modal has removed the data from its worker, or `sb.stdout` can't read on.
                if handle is None or gone:
                    raise
                gone = True
                continue
            await patience.pause()
            await self._handles.renew(self._sandbox, handle)

    async def _read(self, handle: Any) -> None:
        with stream_errors():
            async with aclosing(read(handle, self._stream, self._position)) as chunks:
                async for chunk in chunks:
                    if isinstance(chunk, MissingBytes):
                        await self._read_history(chunk.end)
                    else:
                        await self._put(self._position.decoder.decode(chunk))

    async def _read_history(self, end: int | None) -> None:
        """Read from the position up to a byte, or to the end, in the history instead."""
        start, decoder = self._position.offset, self._position.decoder
        await self._put(decoder.decode(b"", True), missing=0 if end is None else end - start)
        decoder.reset()
        offset = 0
        batches = log_history.fetch_entries(
            self._handles, self._sandbox, None, source=self._stream, settle=True
        )
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


async def _wait(sandbox: Any) -> None:
    """Wait for the end of an inner sandbox."""
    from modal.exception import SandboxTimeoutError

    with contextlib.suppress(SandboxTimeoutError), stream_errors():
        await sandbox.wait(raise_on_termination=False)
