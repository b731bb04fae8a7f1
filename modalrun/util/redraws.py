"""Tell the states of a line that a program redraws, such as a progress bar. Pure.

A carriage return redraws a line. The bars of nested loops (tqdm) stand below each other: one that
is not the first goes up after each state, and down before the next.
"""

from __future__ import annotations

import re

LONGEST = 65_536
"""Characters of a redrawn line that are held back at most."""

_UP = "\x1b[A"
_UP_AND_DOWN = re.compile(r"((?:\x1b\[A)+)(\n+)")


def split(text: str) -> tuple[str, str]:
    """Split a text behind its last whole line; of the rest keep what has not been redrawn."""
    if _UP in text:
        text = _UP_AND_DOWN.sub(_without_detour, text)
    end = text.rfind("\n") + 1
    rest = text[end:].rstrip("\r")
    returned = "\r" if len(rest) < len(text) - end else ""
    # The mark before the last state stays: it tells that the line is redrawn.
    return text[:end], rest[max(0, rest.rfind("\r")) :] + returned


def split_bytes(data: bytes) -> tuple[bytes, bytes]:
    """Do the same with encoded text."""
    if b"\r" not in data:
        end = data.rfind(b"\n") + 1
        return data[:end], data[end:]
    whole, rest = split(data.decode("latin-1"))
    return whole.encode("latin-1"), rest.encode("latin-1")


def state(line: str) -> str:
    """Return the last state of a line."""
    return line.rstrip("\r").rpartition("\r")[2]


def _without_detour(found: re.Match[str]) -> str:
    ups, downs = found.groups()
    count = min(len(ups) // len(_UP), len(downs))
    return ups[count * len(_UP) :] + "\r" + downs[count:]
