"""Assemble whole lines from pieces of text."""

from __future__ import annotations


class LineAssembler:
    """Assemble lines in bounded memory: a line over `limit` characters comes in parts."""

    def __init__(self, limit: int = 65_536) -> None:
        self._limit = limit
        self._rest = ""

    def feed(self, text: str) -> list[str]:
        """Return the lines that `text` completes, without their line feeds."""
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) <= self._limit and all(len(line) <= self._limit for line in lines):
            return lines
        parts = [part for line in lines for part in self._parts(line)]
        *more, self._rest = self._parts(self._rest)
        return parts + more

    def _parts(self, line: str) -> list[str]:
        return [line[i : i + self._limit] for i in range(0, len(line), self._limit)] or [""]

    def flush(self) -> list[str]:
        """Return the last line, if it has no line feed."""
        rest, self._rest = self._rest, ""
        return [rest] if rest else []
