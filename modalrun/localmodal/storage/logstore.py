"""Store the output of sandboxes: raw bytes per stream, and an index of lines by time.

Each sandbox has a folder with `stdout` and `stderr` (the exact bytes, append-only) and `index`. An
index record of 32 bytes says that a range of a stream became complete lines at a time. Reads by
byte offset need no index; history, counts and following an app do. Each line is an entry; a line
beyond 256 KiB becomes several. What is beyond the limit of a log is left out, but for its end.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import shutil
import struct
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modalrun.localmodal.signals import Signal
from modalrun.localmodal.storage.disk import AppendedFile, Disk
from modalrun.localmodal.storage.ids import Clock

_RECORD = struct.Struct("<QQQIB3x")
STDOUT = 1
STDERR = 2
_FILES = {STDOUT: "stdout", STDERR: "stderr"}
_LONGEST_LINE = 256 * 1024
_BLOCK = 512
_HELD_LIMIT = 16 * 1024 * 1024
"""Bytes of a sandbox's output that wait in memory for room on the disk."""

_KEPT_AT_THE_END = 64 * 1024
"""Bytes of each stream that a log beyond its limit still gets, when its sandbox has ended."""

_EVENT = re.compile(rb'\x1e\{"modalrun".*\n')
"""An event of modalrun. Its driver waits for one to learn that a step has ended."""

LIMIT_VARIABLE = "MODALRUN_LOCAL_LOG_LIMIT"
"""MiB of the log of one sandbox, default 1024: both streams and the index."""

_RETRY_SECONDS = 1.0
"""How often output that waits for room is written."""


@dataclass(frozen=True)
class Span:
    """Complete lines of one stream that arrived together. Times are nanoseconds since 1970."""

    time_ns: int
    start: int
    end: int
    entries: int
    descriptor: int


def whole_characters(data: bytes) -> int:
    """Count the bytes before a UTF-8 sequence that is cut off at the end."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data[-4:])
    return len(data) - len(decoder.getstate()[0])


class SandboxLog:
    """The stored output of one sandbox. Only the server's one thread uses it."""

    def __init__(
        self, folder: Path, clock: Clock, disk: Disk | None = None, *, writable: bool
    ) -> None:
        """Open the log. Raises FileNotFoundError if it is missing and not `writable`."""
        if writable:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        disk = disk or Disk(folder)
        self._clock = clock
        self._files = {
            fd: AppendedFile(folder / name, disk, writable=writable) for fd, name in _FILES.items()
        }
        self._index = AppendedFile(folder / "index", disk, writable=writable)
        self._indexed = dict.fromkeys(_FILES, 0)
        self._limit = int(float(os.environ.get(LIMIT_VARIABLE) or 1024) * 1024 * 1024)
        self._ends: dict[int, bytes] | None = None
        self.count = self._index.size // _RECORD.size
        self.complete = not writable
        self.changed = Signal()

    @property
    def held(self) -> int:
        """The bytes that wait in memory for room on the disk."""
        return self._index.held + sum(file.held for file in self._files.values())

    def flush(self) -> None:
        """Write what waits in memory as far as there is room."""
        for file in (*self._files.values(), self._index):
            file.flush()

    def append(self, descriptor: int, data: bytes) -> None:
        """Store output, up to the log's limit; keep it in memory while the disk is full."""
        if self._ends is not None:
            self._hold(descriptor, self._ends, data)
            return
        used = self._index.size + sum(file.size for file in self._files.values())
        left = max(0, self._limit - used)
        if len(data) <= left:
            self._store(descriptor, data)
            return
        note = (
            f"\n[modalrun: the output of this sandbox has reached {LIMIT_VARIABLE}, "
            f"{self._limit / 2**20:g} MiB. The rest is left out, but for its last "
            f"{_KEPT_AT_THE_END // 1024} KiB.]\n"
        )
        self._store(descriptor, data[:left] + note.encode())
        self._ends = dict.fromkeys(_FILES, b"")
        self._hold(descriptor, self._ends, data[left:])

    def _hold(self, descriptor: int, ends: dict[int, bytes], data: bytes) -> None:
        """Keep the end of what is beyond the limit in memory; store events."""
        held = ends[descriptor] + data
        for event in _EVENT.findall(held):
            within_a_line = self._files[descriptor].size > self._indexed[descriptor]
            self._store(descriptor, b"\n" * within_a_line + event)
        ends[descriptor] = _EVENT.sub(b"", held)[-_KEPT_AT_THE_END:]

    def _store(self, descriptor: int, data: bytes) -> None:
        file = self._files[descriptor]
        before = file.size
        file.append(data)
        size = file.size
        newline = data.rfind(b"\n")
        if newline >= 0:
            self._add(descriptor, before + newline + 1, data.count(b"\n"))
        elif size - self._indexed[descriptor] > _LONGEST_LINE:
            self._add(descriptor, before + whole_characters(data), 1)
        self.changed.fire()

    def finish(self) -> None:
        """Complete the log; a last line without newline becomes an entry."""
        for descriptor, end in (self._ends or {}).items():
            # A line that is cut off is not one.
            whole = end if len(end) < _KEPT_AT_THE_END else end[end.find(b"\n") + 1 :]
            if whole:
                self._store(descriptor, whole)
        for descriptor, file in self._files.items():
            if file.size > self._indexed[descriptor]:
                self._add(descriptor, file.size, 1)
        self.complete = True
        self.changed.fire()

    def recover(self) -> None:
        """Index the output that a killed server had not indexed, and complete the log."""
        self._index.truncate(self.count * _RECORD.size)
        for span in self.spans():
            self._indexed[span.descriptor] = span.end
        for descriptor, file in self._files.items():
            while (start := self._indexed[descriptor]) < file.size:
                data = self.read(descriptor, start, _LONGEST_LINE)
                newline = data.rfind(b"\n") + 1
                self._add(descriptor, start + (newline or len(data)), data.count(b"\n") or 1)
        self.finish()

    def _add(self, descriptor: int, end: int, entries: int) -> None:
        start, self._indexed[descriptor] = self._indexed[descriptor], end
        record = _RECORD.pack(self._clock.now_ns(), start, end, entries, descriptor)
        self._index.append(record)
        self.count += 1

    def read(self, descriptor: int, offset: int, limit: int) -> bytes:
        """Read up to `limit` bytes of a stream from an offset; empty at the end."""
        return self._files[descriptor].read(offset, limit)

    def read_span(self, span: Span) -> bytes:
        """Read the bytes of a span."""
        return self.read(span.descriptor, span.start, span.end - span.start)

    def size(self, descriptor: int) -> int:
        """Return the stored bytes of a stream."""
        return self._files[descriptor].size

    def spans(self, first: int = 0, last: int | None = None) -> Iterator[Span]:
        """Yield the spans numbered `first` to `last` (exclusive), oldest first."""
        stop = self.count if last is None else min(last, self.count)
        while first < stop:
            size = min(_BLOCK, stop - first) * _RECORD.size
            block = self._index.read(first * _RECORD.size, size)
            for fields in _RECORD.iter_unpack(block[: len(block) // _RECORD.size * _RECORD.size]):
                yield Span(*fields)
            first += _BLOCK

    def first_after(self, time_ns: int) -> int:
        """Return the number of the first span after `time_ns`."""

        def time_of(number: int) -> int:
            return int.from_bytes(self._index.read(number * _RECORD.size, 8), "little")

        return bisect_right(range(self.count), time_ns, key=time_of)

    def lines(self, span: Span) -> list[str]:
        """Return the lines of a span with their newlines; invalid UTF-8 becomes U+FFFD."""
        data = self.read_span(span)
        return [line.decode("utf-8", "replace") for line in re.findall(rb"[^\n]*\n|[^\n]+", data)]

    def close(self) -> None:
        for file in (*self._files.values(), self._index):
            file.close()
        self._files.clear()


class LogStore:
    """The logs of a state folder, of running and finished sandboxes."""

    def __init__(self, folder: Path, clock: Clock, disk: Disk) -> None:
        self._folder = folder
        self._clock = clock
        self._disk = disk
        self._flushing: asyncio.TimerHandle | None = None
        self._open: dict[str, SandboxLog] = {}
        self._readers: dict[str, tuple[int, SandboxLog]] = {}
        self.changed = Signal()

    def create(self, sandbox_id: str) -> SandboxLog:
        """Create the log of a new sandbox."""
        log = SandboxLog(self._folder / sandbox_id, self._clock, self._disk, writable=True)
        self._open[sandbox_id] = log
        return log

    def append(self, sandbox_id: str, descriptor: int, data: bytes) -> None:
        log = self._open[sandbox_id]
        log.append(descriptor, data)
        if log.held:
            self._flush_later()
        self.changed.fire()

    def is_full(self, sandbox_id: str) -> bool:
        """Return whether a sandbox must wait before it prints more."""
        return self._open[sandbox_id].held > _HELD_LIMIT

    def finish(self, sandbox_id: str) -> None:
        """Complete a log. Its last reader closes it."""
        self._open[sandbox_id].finish()
        self.changed.fire()
        self.flush()

    def flush(self) -> None:
        """Write what waits for room on the disk, and close what is complete."""
        self._flushing = None
        for sandbox_id, log in list(self._open.items()):
            log.flush()
            if log.held:
                self._flush_later()
            elif log.complete:
                del self._open[sandbox_id]
                if sandbox_id not in self._readers:
                    log.close()

    def _flush_later(self) -> None:
        if self._flushing is None:
            loop = asyncio.get_running_loop()
            self._flushing = loop.call_later(_RETRY_SECONDS, self.flush)

    def recover(self, sandbox_id: str) -> None:
        """Complete the log of a sandbox whose server was killed."""
        log = SandboxLog(self._folder / sandbox_id, self._clock, writable=True)
        log.recover()
        log.close()

    def has(self, sandbox_id: str) -> bool:
        """Return whether a sandbox has a log."""
        return sandbox_id in self._open or (self._folder / sandbox_id / "index").exists()

    @contextmanager
    def reading(self, sandbox_id: str) -> Iterator[SandboxLog]:
        """Open a log for reading. Raises FileNotFoundError."""
        users, log = self._readers.get(sandbox_id, (0, self._open.get(sandbox_id)))
        if log is None:
            log = SandboxLog(self._folder / sandbox_id, self._clock, writable=False)
        self._readers[sandbox_id] = (users + 1, log)
        try:
            yield log
        finally:
            users, log = self._readers.pop(sandbox_id)
            if users > 1:
                self._readers[sandbox_id] = (users - 1, log)
            elif sandbox_id not in self._open:
                log.close()

    async def follow(self, sandbox_id: str) -> AsyncIterator[bytes]:
        """Stream a sandbox's past and future output by complete lines."""
        with self.reading(sandbox_id) as log:
            done = 0
            while True:
                for span in log.spans(done):
                    yield log.read_span(span)
                    done += 1
                if done < log.count:
                    continue
                if log.complete:
                    return
                await log.changed.wait()

    def remove(self, sandbox_id: str) -> None:
        """Delete a log that nobody reads."""
        if log := self._open.pop(sandbox_id, None):
            log.close()
        shutil.rmtree(self._folder / sandbox_id, ignore_errors=True)
