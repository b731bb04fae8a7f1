"""Assemble whole lines from pieces of text."""

from __future__ import annotations


class LineAssembler:
    """Assemble lines in bounded memory: a line over `limit` characters comes in parts."""

    def __init__(self, limit: int = 65_536) -> None:
        self._limit = limit
        # Joined when the line is complete: to join at each piece would take quadratic time.
        self._pieces: list[str] = []
        self._size = 0

    def feed(self, text: str) -> list[str]:
        """Return the lines that `text` completes, without their line feeds."""
        first, *others = text.split("\n")
        if first:
            self._pieces.append(first)
            self._size += len(first)
        if not others and self._size <= self._limit:
            return []
        *whole, rest = ["".join(self._pieces), *others]
        if len(text) + self._size > self._limit:
            whole = [part for line in whole for part in self._parts(line)]
            *more, rest = self._parts(rest)
            whole += more
        self._pieces, self._size = [rest], len(rest)
        return whole

    def _parts(self, line: str) -> list[str]:
        return [line[i : i + self._limit] for i in range(0, len(line), self._limit)] or [""]

    def flush(self) -> list[str]:
        """Return the last line, if it has no line feed."""
        rest = "".join(self._pieces)
        self._pieces, self._size = [], 0
        return [rest] if rest else []
