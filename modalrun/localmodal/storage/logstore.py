"""Store the output of sandboxes: raw bytes per stream, and an index of lines by time.

Each sandbox has a folder with `stdout` and `stderr` (the exact bytes, append-only) and `index`. An
index record of 32 bytes says that a range of a stream became complete lines at a time. Reads by
byte offset need no index; history, counts and following an app do. Each line is an entry; a line
beyond 256 KiB becomes several.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from modalrun.localmodal.signals import Signal
from modalrun.localmodal.storage.ids import Clock

_RECORD = struct.Struct("<QQQIB3x")
STDOUT = 1
STDERR = 2
_FILES = {STDOUT: "stdout", STDERR: "stderr"}
_LONGEST_LINE = 256 * 1024
_BLOCK = 512


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
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return len(data) - back if length > back else len(data)
    return len(data)


class SandboxLog:
    """The stored output of one sandbox. Only the server's one thread uses it."""

    def __init__(self, folder: Path, clock: Clock, *, writable: bool) -> None:
        """Open the log. Raises FileNotFoundError if it is missing and not `writable`."""
        if writable:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if writable else os.O_RDONLY
        self._clock = clock
        self._files = {fd: os.open(folder / name, flags, 0o600) for fd, name in _FILES.items()}
        self._index = os.open(folder / "index", flags, 0o600)
        self._sizes = {fd: os.fstat(file).st_size for fd, file in self._files.items()}
        self._indexed = dict.fromkeys(_FILES, 0)
        self.count = os.fstat(self._index).st_size // _RECORD.size
        self.complete = not writable
        self.changed = Signal()

    def append(self, descriptor: int, data: bytes) -> None:
        """Store output. Raises OSError, for example when the disk is full."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._files[descriptor], view) :]
        before = self._sizes[descriptor]
        size = self._sizes[descriptor] = before + len(data)
        newline = data.rfind(b"\n")
        if newline >= 0:
            self._add(descriptor, before + newline + 1, data.count(b"\n"))
        elif size - self._indexed[descriptor] > _LONGEST_LINE:
            self._add(descriptor, before + whole_characters(data), 1)
        self.changed.fire()

    def finish(self) -> None:
        """Complete the log; a last line without newline becomes an entry."""
        for descriptor, size in self._sizes.items():
            if size > self._indexed[descriptor]:
                self._add(descriptor, size, 1)
        self.complete = True
        self.changed.fire()

    def recover(self) -> None:
        """Index the output that a killed server had not indexed, and complete the log."""
        self.count = os.fstat(self._index).st_size // _RECORD.size
        os.truncate(self._index, self.count * _RECORD.size)
        for span in self.spans():
            self._indexed[span.descriptor] = span.end
        for descriptor, size in self._sizes.items():
            while (start := self._indexed[descriptor]) < size:
                data = self.read(descriptor, start, _LONGEST_LINE)
                newline = data.rfind(b"\n") + 1
                self._add(descriptor, start + (newline or len(data)), data.count(b"\n") or 1)
        self.finish()

    def _add(self, descriptor: int, end: int, entries: int) -> None:
        start, self._indexed[descriptor] = self._indexed[descriptor], end
        record = _RECORD.pack(self._clock.now_ns(), start, end, entries, descriptor)
        os.write(self._index, record)
        self.count += 1

    def read(self, descriptor: int, offset: int, limit: int) -> bytes:
        """Read up to `limit` bytes of a stream from an offset; empty at the end."""
        return os.pread(self._files[descriptor], limit, offset)

    def read_span(self, span: Span) -> bytes:
        """Read the bytes of a span."""
        return self.read(span.descriptor, span.start, span.end - span.start)

    def size(self, descriptor: int) -> int:
        """Return the stored bytes of a stream."""
        return self._sizes[descriptor]

    def spans(self, first: int = 0, last: int | None = None) -> Iterator[Span]:
        """Yield the spans numbered `first` to `last` (exclusive), oldest first."""
        stop = self.count if last is None else min(last, self.count)
        while first < stop:
            size = min(_BLOCK, stop - first) * _RECORD.size
            block = os.pread(self._index, size, first * _RECORD.size)
            for fields in _RECORD.iter_unpack(block[: len(block) // _RECORD.size * _RECORD.size]):
                yield Span(*fields)
            first += _BLOCK

    def first_after(self, time_ns: int) -> int:
        """Return the number of the first span after `time_ns`."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            stamp = os.pread(self._index, 8, middle * _RECORD.size)
            if int.from_bytes(stamp, "little") > time_ns:
                high = middle
            else:
                low = middle + 1
        return low

    def lines(self, span: Span) -> list[str]:
        """Return the lines of a span with their newlines; invalid UTF-8 becomes U+FFFD."""
        data = self.read_span(span)
        return [line.decode("utf-8", "replace") for line in re.findall(rb"[^\n]*\n|[^\n]+", data)]

    def close(self) -> None:
        for file in (*self._files.values(), self._index):
            os.close(file)
        self._files.clear()


class LogStore:
    """The logs of a state folder, of running and finished sandboxes."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._open: dict[str, SandboxLog] = {}
        self._readers: dict[str, tuple[int, SandboxLog]] = {}
        self.changed = Signal()

    def create(self, sandbox_id: str) -> SandboxLog:
        """Create the log of a new sandbox."""
        log = SandboxLog(self._folder / sandbox_id, self._clock, writable=True)
        self._open[sandbox_id] = log
        return log

    def append(self, sandbox_id: str, descriptor: int, data: bytes) -> None:
        self._open[sandbox_id].append(descriptor, data)
        self.changed.fire()

    def finish(self, sandbox_id: str) -> None:
        """Complete a log. Its last reader closes it."""
        log = self._open.pop(sandbox_id)
        log.finish()
        self.changed.fire()
        users, _ = self._readers.get(sandbox_id, (0, log))
        if not users:
            log.close()

    def recover(self, sandbox_id: str) -> None:
        """Complete the log of a sandbox whose server was killed."""
        log = SandboxLog(self._folder / sandbox_id, self._clock, writable=True)
        log.recover()
        log.close()

    def has(self, sandbox_id: str) -> bool:
        """Return whether a sandbox has a log."""
        return sandbox_id in self._open or (self._folder / sandbox_id / "index").exists()

    def acquire(self, sandbox_id: str) -> SandboxLog:
        """Open a log for reading until `release`. Raises FileNotFoundError."""
        users, log = self._readers.get(sandbox_id, (0, self._open.get(sandbox_id)))
        if log is None:
            log = SandboxLog(self._folder / sandbox_id, self._clock, writable=False)
        self._readers[sandbox_id] = (users + 1, log)
        return log

    def release(self, sandbox_id: str) -> None:
        users, log = self._readers.pop(sandbox_id)
        if users > 1:
            self._readers[sandbox_id] = (users - 1, log)
        elif sandbox_id not in self._open:
            log.close()

    async def follow(self, sandbox_id: str) -> AsyncIterator[bytes]:
        """Stream a sandbox's past and future output by complete lines."""
        log = self.acquire(sandbox_id)
        try:
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
        finally:
            self.release(sandbox_id)

    def remove(self, sandbox_id: str) -> None:
        """Delete a log."""
        shutil.rmtree(self._folder / sandbox_id, ignore_errors=True)
