"""Prove the events of a process in a sandbox, so that no line of user code passes for one. Pure.

User code prints to the same streams as modalrun. The supervisor, which runs no user code, is the
only one that writes to a sandbox's output. It gives each child a key of its own. The child's events
come with a proof: a number that grows, and a keyed hash of number, stream and event. The supervisor
writes those as events, in their place between the lines. Whatever else looks like an event loses
the look: one character is inserted into it, and every other byte stays.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator

MARK = "\x1e"
PREFIX = f'{MARK}{{"modalrun"'
"""What each event begins with. Whatever begins otherwise is none, even if it is the same JSON."""

END = f'{PREFIX}: "end"}}'
"""The last line of each stream of a sandbox, unless its supervisor was killed."""

KEY_BYTES = 32

_MARK = PREFIX.encode()
_DISARMED = _MARK[:-1] + b"?" + _MARK[-1:]
_REST = len(_MARK) - 1

_PROVEN = re.compile(rb"\x1e#([0-9]{1,15})#([0-9a-f]{64})(\{[^\x1e\n]*)\n")
_START = b"\x1e#"

_LONGEST = 65_536
"""Bytes of a proven event at most, as long as a reader's line."""


class Prover:
    """Prove the events of a process.

    Attributes:
        key: The key; `forget` overwrites it.
    """

    def __init__(self, key: bytearray) -> None:
        self.key = key
        self._number = 0

    def prove(self, line: str, stream: int) -> str:
        """Add the proof to the line of an event, for the stream 1 (stdout) or 2 (stderr)."""
        if not self.key:
            return line
        self._number += 1
        encoded = line[len(MARK) : -1]
        proof = _proof(self.key, self._number, stream, encoded.encode())
        return f"{MARK}#{self._number}#{proof}{encoded}\n"

    def forget(self) -> None:
        """Prove nothing from now on, because user code follows."""
        self.key[:] = bytes(len(self.key))
        self.key.clear()


class Output:
    """One stream of a sandbox: write events, and text in which nothing passes for one.

    Attributes:
        at_start: Whether what was written last ends a line.
    """

    def __init__(self) -> None:
        # The end of the last text.
        self._tail = b""
        self.at_start = True

    def text(self, data: bytes) -> bytes:
        """Return text of user code as it is written."""
        if not data:
            return b""
        self.at_start = data.endswith(b"\n")
        tail, self._tail = self._tail, data[-_REST:]
        if len(data) < _REST:
            self._tail = (tail + data)[-_REST:]
        if b"\x1e" not in tail and b"\x1e" not in data:
            return data
        # Only the last byte of a mark changes what is written, so it may have begun earlier.
        return (tail + data).replace(_MARK, _DISARMED)[len(tail) :]

    def event(self, encoded: bytes) -> bytes:
        """Return an event as it is written: on a line of its own."""
        line = MARK.encode() + encoded + b"\n"
        before = b"" if self.at_start else b"\n"
        self._tail, self.at_start = b"", True
        return before + line


class ProofReader:
    """Tell the proven events of one stream of one child from its other output."""

    def __init__(self, key: bytes, stream: int, output: Output) -> None:
        """
        Args:
            stream: The descriptor of the stream in the child: 1 or 2.
            output: The stream of the sandbox that it is written to.
        """
        self._key = key
        self._stream = stream
        self._output = output
        self._last = 0
        self._pending = b""

    def feed(self, data: bytes, *, final: bool = False) -> bytes:
        """Return what a piece of the child's output becomes; the last one is `final`."""
        if not self._pending and b"\x1e" not in data:
            return self._output.text(data)
        data, self._pending = self._pending + data, b""
        if not final and (start := _unfinished(data)) >= 0:
            data, self._pending = data[:start], data[start:]
        return b"".join(self._pieces(data))

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        done = 0
        for found in _PROVEN.finditer(data):
            number, proof, encoded = found.groups()
            if int(number) > self._last and hmac.compare_digest(
                proof, _proof(self._key, int(number), self._stream, encoded).encode()
            ):
                self._last = int(number)
                yield self._output.text(data[done : found.start()])
                yield self._output.event(encoded)
                done = found.end()
        yield self._output.text(data[done:])


def _unfinished(data: bytes) -> int:
    """Return where the proven event begins whose end may be still to come; -1 if there is none."""
    at = data.rfind(b"\x1e", max(0, len(data) - _LONGEST))
    if at < 0 or data.find(b"\n", at) >= 0 or data[at : at + 2] != _START[: len(data) - at]:
        return -1
    return at


def _proof(key: bytes | bytearray, number: int, stream: int, encoded: bytes) -> str:
    return hmac.digest(key, b"%d %d " % (number, stream) + encoded, "sha256").hex()
