"""Send JSON messages, one a line, between a process of modalrun and one that runs user code.

User code reaches its end of the socket, so the other end takes nothing for granted: it unpickles
nothing, never waits for the rest of a message, and validates what it reads.
"""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, is_dataclass
from typing import Any

_CHUNK = 65_536
_READS = 1024
"""How many pieces are read at a time at most, so that a flood keeps nothing else waiting."""

LONGEST = 64 * 1024 * 1024
"""Bytes of a message at most."""


class MessageSocket:
    """One end of a socket that carries messages."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._pending = bytearray()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, message: Any) -> None:
        """Send a dataclass; raise OSError if it can't be sent.

        Lone surrogates, which JSON has no room for, are replaced.
        """
        assert is_dataclass(message) and not isinstance(message, type)
        text = json.dumps(asdict(message), ensure_ascii=False, default=list)
        self._socket.sendall(text.encode("utf-8", "replace") + b"\n")

    def receive(self) -> bytes:
        """Wait for a message; raise EOFError at the end."""
        while b"\n" not in self._pending:
            self._read()
        return self._take()[0]

    def received(self) -> list[bytes]:
        """Return the whole messages that are there now, without waiting for more.

        Raises:
            EOFError: There are none, and no more will come; or one is too long.
        """
        self._socket.setblocking(False)
        try:
            for _ in range(_READS):
                self._read()
        except BlockingIOError:
            pass
        except EOFError:
            if b"\n" not in self._pending:
                raise
        if b"\n" not in self._pending:
            return []
        return self._take(all_of_them=True)

    def _read(self) -> None:
        data = self._socket.recv(_CHUNK)
        if not data or len(self._pending) > LONGEST:
            raise EOFError
        self._pending += data

    def _take(self, *, all_of_them: bool = False) -> list[bytes]:
        whole, _, rest = (
            self._pending.rpartition(b"\n") if all_of_them else self._pending.partition(b"\n")
        )
        self._pending = bytearray(rest)
        return bytes(whole).split(b"\n")
