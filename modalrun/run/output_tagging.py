"""Says on stdout and stderr whose lines follow, where several steps share one process.

While one step runs, all that the process prints is its own, also what its child processes write
to the same descriptors. While several run, each line that a step's thread prints is marked by
itself; what can't be told (a child process, a thread of the user's) belongs to nobody.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

from modalrun.run import events
from modalrun.run.events import LinesOf

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_LONGEST_PENDING = 65_536
"""Bytes of a line that a step may keep back while others print."""

_MARK = events.MARK.encode()
_NOBODY = ""
"""In place of a step's name: what a thread prints belongs to no step, also while one runs alone."""

_step: ContextVar[str | None] = ContextVar("step", default=None)
_running: list[str] = []
_lock = threading.RLock()
_streams: list[MarkedBuffer] = []


class MarkedBuffer(io.BufferedIOBase):
    """What lies beneath `sys.stdout` or `sys.stderr`: puts markers between the steps' lines."""

    def __init__(self, plain: io.BufferedIOBase, name: str) -> None:
        """
        Args:
            plain: What lay there before, and what is written to.
            name: The stream's name, as "<stdout>".
        """
        self._plain = plain
        self.name = name
        self._marked: str | None = None
        self._pending: dict[str | None, bytes] = {}

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The descriptor that is written to."""
        return self._plain.fileno()

    def isatty(self) -> bool:
        """Whether that is a terminal."""
        return self._plain.isatty()

    def flush(self) -> None:
        """Pass on what has been written, but for what a step keeps back."""
        with _lock:
            self._plain.flush()

    def write(self, data: ReadableBuffer) -> int:
        """Print for the step that the calling thread belongs to."""
        text = bytes(data)
        with _lock:
            held = _step.get()
            step = _alone() if held is None else held or None
            known = step == self._marked == _alone() and not self._pending.get(step)
            if known or text.startswith(_MARK):
                self._plain.write(text)
                if b"\n" in text:
                    self._plain.flush()
            else:
                self._write_lines(step, text)
        return len(text)

    def _write_lines(self, step: str | None, text: bytes) -> None:
        """Print what is complete, so that the lines of two threads don't run into each other."""
        whole, newline, rest = (self._pending.pop(step, b"") + text).rpartition(b"\n")
        if len(rest) > _LONGEST_PENDING:
            whole, newline, rest = whole + newline + rest, b"", b""
        if rest:
            self._pending[step] = rest
        if whole or newline:
            self._write_marked(step, whole + newline)

    def _write_marked(self, step: str | None, text: bytes) -> None:
        before = b"" if step == self._marked else _marker(step)
        self._marked = _alone()
        after = b"" if step == self._marked else _marker(self._marked)
        self._plain.write(before + text + after)
        self._plain.flush()

    def mark(self) -> None:
        """The steps that run have changed: say whose lines follow from now on."""
        with _lock:
            if self._marked != _alone():
                self._marked = _alone()
                self._plain.write(_marker(self._marked))
                self._plain.flush()

    def finish(self, step: str) -> None:
        """Print what a step that has ended kept back."""
        with _lock:
            if rest := self._pending.pop(step, b""):
                self._write_marked(step, rest)


def _marker(step: str | None) -> bytes:
    return events.line(LinesOf(step)).encode()


def install() -> None:
    """Lay a marked buffer beneath both standard streams, and say at once that it is so.

    The streams stay the same objects: ZenML, which may have been imported before (a warm process),
    holds on to them and to what it has laid over their `write`.
    """
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.flush()
        marked = MarkedBuffer(stream.buffer, stream.name)
        _streams.append(marked)
        stream.__init__(  # type: ignore[misc]
            marked, encoding=stream.encoding, errors=stream.errors, write_through=True
        )
    _streams[0].write(_marker(None))


def lines_of_nobody() -> None:
    """What this thread prints from now on outside of `lines_of` belongs to no step."""
    _step.set(_NOBODY)


@contextlib.contextmanager
def lines_of(step: str) -> Iterator[None]:
    """What is printed inside belongs to this step."""
    token = _step.set(step)
    with _lock:
        _running.append(step)
        for stream in _streams:
            stream.mark()
    try:
        yield
    finally:
        with _lock:
            for stream in _streams:
                stream.finish(step)
            _running.remove(step)
            for stream in _streams:
                stream.mark()
        _step.reset(token)


def _alone() -> str | None:
    """The step that runs, if it is the only one."""
    return _running[0] if len(_running) == 1 else None
