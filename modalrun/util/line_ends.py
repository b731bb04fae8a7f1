"""End the lines that others leave unfinished on the standard streams."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def ended() -> Iterator[None]:
    """End the last line of stdout and of stderr after the block, so that others begin their own."""
    watched = [_Watched(stream) for stream in dict.fromkeys((sys.stdout, sys.stderr))]
    try:
        yield
    finally:
        for one in watched:
            one.end()


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
