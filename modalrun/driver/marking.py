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

from modalrun.driver import events
from modalrun.driver.events import LinesOf

_LONGEST_PENDING = 65_536
"""Characters of a line that a step may keep back while others print."""

_step: ContextVar[str | None] = ContextVar("step", default=None)
_running: list[str] = []
_lock = threading.RLock()
_streams: list[MarkedStream] = []


class MarkedStream(io.TextIOWrapper):
    """`sys.stdout` or `sys.stderr`, with markers between the lines of different steps.

    ZenML lays its own `write` over this one when it is imported after it.
    """

    def __init__(self, plain: io.TextIOWrapper) -> None:
        """
        Args:
            plain: The stream that it stands in for, with the same buffer beneath.
        """
        super().__init__(
            plain.buffer, encoding=plain.encoding, errors=plain.errors, line_buffering=True
        )
        self._marked: str | None = None
        self._pending: dict[str | None, str] = {}

    def write(self, text: str) -> int:
        """Print a text for the step that the calling thread belongs to."""
        with _lock:
            step = _step.get() or _alone()
            known = step == self._marked == _alone() and not self._pending.get(step)
            if known or text.startswith(events.MARK):
                super().write(text)
            else:
                self._write_lines(step, text)
        return len(text)

    def _write_lines(self, step: str | None, text: str) -> None:
        """Print what is complete, so that the lines of two threads don't run into each other."""
        whole, newline, rest = (self._pending.pop(step, "") + text).rpartition("\n")
        if len(rest) > _LONGEST_PENDING:
            whole, newline, rest = whole + newline + rest, "", ""
        if rest:
            self._pending[step] = rest
        if whole or newline:
            self._write_marked(step, whole + newline)

    def _write_marked(self, step: str | None, text: str) -> None:
        before = "" if step == self._marked else events.line(LinesOf(step))
        self._marked = _alone()
        after = "" if step == self._marked else events.line(LinesOf(self._marked))
        super().write(before + text + after)
        super().flush()

    def mark(self) -> None:
        """The steps that run have changed: say whose lines follow from now on."""
        with _lock:
            if self._marked != _alone():
                self._marked = _alone()
                super().write(events.line(LinesOf(self._marked)))
                super().flush()

    def finish(self, step: str) -> None:
        """Print what a step that has ended kept back."""
        with _lock:
            if rest := self._pending.pop(step, ""):
                self._write_marked(step, rest)


def install() -> None:
    """Put a marked stream in the place of both standard streams."""
    sys.stdout, sys.stderr = (_replaced(sys.stdout), _replaced(sys.stderr))


def _replaced(plain: object) -> MarkedStream:
    assert isinstance(plain, io.TextIOWrapper)
    plain.flush()
    marked = MarkedStream(plain)
    _streams.append(marked)
    return marked


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
