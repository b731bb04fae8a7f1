"""Send JSON messages, one a line, between a process of modalrun and one that runs user code.

User code reaches its end of the socket, so the other end takes nothing for granted: it unpickles
nothing, never waits for the rest of a message, and validates what it reads.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from modalrun.run.values import CHECKED

_CHUNK = 65_536
_READS = 1024
"""How many pieces are read at a time at most, so that a flood keeps nothing else waiting."""

LONGEST = 64 * 1024 * 1024
"""Bytes of a message at most."""


@dataclass(frozen=True)
class Call:
    """Call a method of the broker; or answer the question of this number, whose method is empty."""

    __pydantic_config__ = CHECKED

    number: int
    method: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    value: str | None = None


@dataclass(frozen=True)
class Reply:
    """Reply to a call; or ask or tell something, for which there was no call.

    Attributes:
        number: The call's, or the question's.
        value: The end of a sandbox, if the call has returned one: `SandboxExit`, with the name of
            its kind.
        error: Why it has failed: the name of an error class, the message and a hint.
        asks: The id of a record about which the broker asks how it has ended in ZenML.
        ended: Whether a step has ended; there is no call then.
        waits: What steps wait for now, by their names, once that has changed; there is no call.
    """

    number: int = 0
    value: tuple[str, int | None, str] | None = None
    error: tuple[str, str, str | None] | None = None
    asks: str | None = None
    ended: bool = False
    waits: dict[str, str] | None = None


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
        message, _, self._pending = self._pending.partition(b"\n")
        return bytes(message)

    def received(self) -> list[bytes]:
        """Return the whole messages that are there now, without waiting for more.

        Raises:
            EOFError: There are none, and no more will come; or one is too long.
        """
        try:
            for _ in range(_READS):
                self._read(socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        except EOFError:
            if b"\n" not in self._pending:
                raise
        if b"\n" not in self._pending:
            return []
        whole, _, self._pending = self._pending.rpartition(b"\n")
        return bytes(whole).split(b"\n")

    def _read(self, flags: int = 0) -> None:
        data = self._socket.recv(_CHUNK, flags)
        if not data or len(self._pending) > LONGEST:
            raise EOFError
        self._pending += data
