"""Merge what the workers of a run print into the runner's own streams, each line with its step."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from typing import BinaryIO

from modalrun.driver.last_lines import LastLines
from modalrun.run.events import LinesOf
from modalrun.run.reporting import event_line

_CHUNK = 65_536
_LONGEST_PENDING = 65_536
"""How many bytes of an unfinished line are held back at most."""

_IDLE_SECONDS = 0.05
"""After how long an unfinished line, such as a progress bar, is passed on."""


class TaggedStream:
    """One of the runner's streams: tells before the first of a step's lines whose they are.

    Attributes:
        shared: Whether several steps run, so that only whole lines may be passed on.
    """

    def __init__(self, sink: BinaryIO, number: int) -> None:
        """Write to a sink, which is the descriptor 1 or 2 of this process."""
        self.shared = False
        self._sink = sink
        self._number = number
        self._tagged: str | None = None

    def write(self, step: str | None, text: bytes) -> None:
        """Write text of a step, or of none."""
        tag = b"" if step == self._tagged else event_line(LinesOf(step), self._number)
        self._tagged = step
        self._sink.write(tag + text)
        self._sink.flush()


class WorkerStream:
    """One stream of one worker, read from a pipe.

    Attributes:
        step: The step that runs in the worker; None between steps.
        pipe: The descriptor; -1 once it is closed.
    """

    def __init__(self, pipe: int, target: TaggedStream, last: LastLines) -> None:
        """Read a pipe.

        Args:
            pipe: Its descriptor.
            target: Where the lines go.
            last: Keeps the last ones of the worker.
        """
        self.step: str | None = None
        self.pipe = pipe
        self._target = target
        self._last = last
        self._pending = b""
        self._idle: asyncio.TimerHandle | None = None
        os.set_blocking(pipe, False)
        asyncio.get_running_loop().add_reader(pipe, self._read)

    def drain(self) -> None:
        """Pass on all that was printed so far, also an unfinished line."""
        # No more than that: a process that the step has left may print for ever.
        left = _readable_bytes(self.pipe) if self.pipe >= 0 else 0
        while left > 0 and (read := self._read()):
            left -= read
        self._flush()

    def close(self) -> None:
        """Pass on what was printed, and read no more."""
        self.drain()
        self._close()

    def _read(self) -> int:
        """Read once; return how many bytes there were."""
        try:
            data = os.read(self.pipe, _CHUNK)
        except BlockingIOError:
            return 0
        if not data:
            self._close()
            return 0
        self._last.add(data)
        whole, newline, self._pending = (self._pending + data).rpartition(b"\n")
        if len(self._pending) > _LONGEST_PENDING:
            whole, newline, self._pending = whole + newline + self._pending, b"", b""
        if whole or newline:
            self._target.write(self.step, whole + newline)
        if self._pending and self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._pass_on)
        return len(data)

    def _pass_on(self) -> None:
        self._idle = None
        if not self._target.shared:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._target.write(self.step, self._pending)
            self._pending = b""

    def _close(self) -> None:
        if self.pipe >= 0:
            self._flush()
            asyncio.get_running_loop().remove_reader(self.pipe)
            os.close(self.pipe)
            self.pipe = -1


def _readable_bytes(descriptor: int) -> int:
    """Return how many bytes a pipe holds."""
    with contextlib.suppress(OSError):
        answer = fcntl.ioctl(descriptor, termios.FIONREAD, struct.pack("i", 0))
        return int(struct.unpack("i", answer)[0])
    return 0
