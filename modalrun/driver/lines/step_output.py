"""Merge what the workers of a run print into the runner's own streams, each line with its step."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from typing import BinaryIO

from modalrun.driver.lines.last_lines import LastLines
from modalrun.driver.lines.throttle import PAUSE
from modalrun.run.events import LinesOf, Redraw
from modalrun.run.reporting import event_line
from modalrun.run.values import LONGEST_TEXT
from modalrun.util import redraws
from modalrun.util.text import one_line

_CHUNK = 65_536
_LONGEST_PENDING = 65_536
"""How many bytes of an unfinished line are held back at most."""

_IDLE_SECONDS = 0.05
"""After how long an unfinished line, such as a question, is passed on."""


class TaggedStream:
    """Write lines of steps to one of the runner's streams, and before them the step's name.

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

    def redraw(self, step: str, line: bytes) -> None:
        """Tell what a line of a step shows that is redrawn and not whole yet."""
        text = one_line(redraws.state(line.decode("utf-8", "replace")), LONGEST_TEXT)
        self.write(step, b"")
        self._sink.write(event_line(Redraw(step, text), self._number))
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
        self._redrawn = False
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
        whole, self._pending = redraws.split_bytes(self._pending + data)
        if len(self._pending) > _LONGEST_PENDING:
            whole, self._pending = whole + self._pending, b""
        if whole:
            self._write(whole)
        if self._pending and self._idle is None:
            wait = PAUSE if b"\r" in self._pending else _IDLE_SECONDS
            self._idle = asyncio.get_running_loop().call_later(wait, self._pass_on)
        return len(data)

    def _pass_on(self) -> None:
        self._idle = None
        if b"\r" in self._pending and self.step is not None:
            # A step that begins now would break the line.
            self._target.redraw(self.step, self._pending)
            self._redrawn = True
        elif not self._target.shared:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._write(self._pending)
            self._pending = b""

    def _write(self, text: bytes) -> None:
        self._target.write(self.step, text)
        if self._redrawn and self.step is not None:
            self._target.redraw(self.step, b"")
        self._redrawn = False

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
