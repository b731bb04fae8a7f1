"""Tag output with the step that wrote it, if several steps share one process.

While one step runs, all output of the process is tagged as its own, with that of child processes.
While several run, each line of a step's thread is tagged by itself; other output (of a child
process or a thread that the user started) belongs to no step.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

from modalrun.run.event_proof import MARK
from modalrun.run.events import LinesOf
from modalrun.run.reporting import event_line
from modalrun.run.reporting import output_lock as _lock

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_LONGEST_PENDING = 65_536
"""How many bytes of an unfinished line a step may hold back while others print."""

_MARK = MARK.encode()
_NO_STEP = ""
"""In place of a step's name: the thread's output belongs to no step, even while only one runs."""

_step: ContextVar[str | None] = ContextVar("step", default=None)
_running: list[str] = []
_streams: list[TaggingBuffer] = []


class TaggingBuffer(io.BufferedIOBase):
    """Write tags between the steps' lines, as the buffer below `sys.stdout` or `sys.stderr`."""

    def __init__(self, plain: io.BufferedIOBase, name: str) -> None:
        """
        Args:
            plain: The stream's own buffer, which this one writes to.
            name: The stream's name, such as "<stdout>".
        """
        self._plain = plain
        self.name = name
        self._number = plain.fileno()
        self._tagged: str | None = None
        self._pending: dict[str | None, bytes] = {}
        self._tags = True

    def writable(self) -> bool:
        """Always true."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of the stream's own buffer."""
        return self._plain.fileno()

    def isatty(self) -> bool:
        """Return whether the descriptor is a terminal."""
        return self._plain.isatty()

    def flush(self) -> None:
        """Flush what was written, and the thread's unfinished line if nothing else runs."""
        with _lock:
            step = _own_step()
            if step == self._tagged == _only_step() and len(_running) <= 1:
                self._plain.write(self._pending.pop(step, b""))
            self._plain.flush()

    def close(self) -> None:
        """Flush only: a step must not close what others write to."""
        self.flush()

    def write(self, data: ReadableBuffer) -> int:
        """Write for the step that the calling thread belongs to."""
        text = bytes(data)
        with _lock:
            step = _own_step()
            # Without a step, an event of another thread could follow an unfinished line.
            tagged = step is not None and step == self._tagged == _only_step()
            if (tagged and not self._pending.get(step)) or text.startswith(_MARK):
                self._plain.write(text)
                if b"\n" in text:
                    self._plain.flush()
            else:
                self._write_lines(step, text)
        return len(text)

    def _write_lines(self, step: str | None, text: bytes) -> None:
        """Write whole lines only, so that the lines of two threads don't mix."""
        whole, newline, rest = (self._pending.pop(step, b"") + text).rpartition(b"\n")
        if len(rest) > _LONGEST_PENDING:
            whole, newline, rest = whole + newline + rest, b"", b""
        if rest:
            self._pending[step] = rest
        if whole or newline:
            self._write_tagged(step, whole + newline)

    def _write_tagged(self, step: str | None, text: bytes) -> None:
        before = b"" if step == self._tagged else self.tag(step)
        self._tagged = _only_step()
        after = b"" if step == self._tagged else self.tag(self._tagged)
        self._plain.write(before + text + after)
        self._plain.flush()

    def update(self) -> None:
        """Write a new tag if the running steps have changed."""
        with _lock:
            if self._tagged != _only_step():
                self._tagged = _only_step()
                self._plain.write(self.tag(self._tagged))
                self._plain.flush()

    def finish(self, step: str) -> None:
        """Write the unfinished line of a step that has ended."""
        with _lock:
            if rest := self._pending.pop(step, b""):
                self._write_tagged(step, rest)

    def tag(self, step: str | None) -> bytes:
        """Return the line that says whose the next lines are; nothing in a fork."""
        return event_line(LinesOf(step), self._number) if self._tags else b""

    def handle_fork(self) -> None:
        """Write no more tags, whose numbers this process's parent uses, nor its text."""
        self._pending.clear()
        self._tags = False


def install() -> None:
    """Put a tagging buffer below both standard streams, and write a first tag to each.

    The streams stay the same objects: ZenML, which a warm process has imported already, keeps
    references to them and replaces their `write`.
    """
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.flush()
        buffer = TaggingBuffer(stream.buffer, stream.name)
        _streams.append(buffer)
        stream.__init__(  # type: ignore[misc]
            buffer, encoding=stream.encoding, errors=stream.errors, write_through=True
        )
        # A process before may have died in a step.
        buffer.write(buffer.tag(None))
    # Held, so that no other thread is within a write.
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_handle_fork
    )


def _handle_fork() -> None:
    for stream in _streams:
        stream.handle_fork()
    _lock.release()


def untag_thread() -> None:
    """Assign this thread's output outside of `tagged` to no step from now on."""
    _step.set(_NO_STEP)


@contextlib.contextmanager
def tagged(step: str) -> Iterator[None]:
    """Tag the output of the block as this step's."""
    token = _step.set(step)
    with _lock:
        _running.append(step)
        for stream in _streams:
            stream.update()
    try:
        yield
    finally:
        with _lock:
            for stream in _streams:
                stream.finish(step)
            _running.remove(step)
            for stream in _streams:
                stream.update()
        _step.reset(token)


def _own_step() -> str | None:
    """Return the step that the calling thread's output belongs to."""
    own = _step.get()
    return _only_step() if own is None else own or None


def _only_step() -> str | None:
    """Return the running step if it is the only one."""
    return _running[0] if len(_running) == 1 else None
