"""Finish the lines that others leave unfinished, or redraw, on the standard streams."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from modalrun.util import redraws


@contextlib.contextmanager
def ended() -> Iterator[None]:
    """End the last line of stdout and of stderr after the block, so that others begin their own."""
    watched = [_Watched(stream) for stream in dict.fromkeys((sys.stdout, sys.stderr))]
    try:
        yield
    finally:
        for one in watched:
            one.end()


@contextlib.contextmanager
def redrawn_once() -> Iterator[None]:
    """Keep the states of lines that the block redraws from what has replaced a stream's `write`.

    ZenML does so to store each text that is written. It gets the last state with the line's end.
    """
    watched = [_Bars(stream) for stream in dict.fromkeys((sys.stdout, sys.stderr))]
    try:
        yield
    finally:
        for one in watched:
            one.end()


class _Bars:
    """The line of a stream that is redrawn."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._before = stream.write
        self._line = ""
        stream.write = self._write

    def _write(self, text: str) -> int:
        whole, rest = redraws.split(self._line + text) if self._line or "\r" in text else ("", "")
        if not self._line and "\r" not in rest:
            count: int = self._before(text)
            return count
        if self._line and whole:
            first, end, others = whole.partition("\n")
            self._raw("\r")
            whole = redraws.state(first) + end + others
        self._line = rest if "\r" in rest else ""
        whole += "" if self._line else rest
        if whole:
            self._before(whole)
        if self._line:
            self._raw(self._line)
        return len(text)

    def _raw(self, text: str) -> None:
        type(self._stream).write(self._stream, text)

    def end(self) -> None:
        """Pass on an unfinished line; watch the stream no longer unless somebody else does."""
        if self._line:
            with contextlib.suppress(OSError, ValueError, TypeError):
                self._raw("\r")
                self._before(redraws.state(self._line))
        if self._stream.write == self._write:
            self._stream.write = self._before


class _Watched:
    """A stream of which the last character is known."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._before = stream.write
        self._last = "\n"
        stream.write = self._write

    def _write(self, text: str) -> int:
        count: int = self._before(text)
        self._last = text[-1:] or self._last
        return count

    def end(self) -> None:
        """Watch it no longer, unless somebody watches what is written here."""
        if self._stream.write == self._write:
            self._stream.write = self._before
        if self._last not in "\r\n":
            # It may be closed by now, or replaced by anything.
            with contextlib.suppress(OSError, ValueError, TypeError):
                self._stream.write("\n")
                self._stream.flush()
