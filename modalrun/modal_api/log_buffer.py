"""Pass output from the SDK's event loop to the thread that reads it, in bounded memory."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Generic, TypeVar

from modalrun.errors import ModalrunError

T = TypeVar("T")

LIMIT = 4 * 1024 * 1024
"""Characters that may wait for the reader before those who write have to wait."""

_OVERHEAD = 200
"""What an item costs besides its text."""


@dataclass(frozen=True)
class Piece:
    """A piece of a stream.

    Attributes:
        sandbox: Modal's id of the sandbox.
        source: Which stream, or "system" for Modal's own word (in the history only).
        text: Text; not necessarily whole lines.
        time: When it was written, in seconds since the epoch; None where only its arrival is known.
        missing: Bytes that the live stream no longer holds, after this text.
        lost: Of those, what the history doesn't hold either.
    """

    sandbox: str
    source: str
    text: str = ""
    time: float | None = None
    missing: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Ended:
    """Nothing more comes of a stream. With an error, it is not known how it went on."""

    sandbox: str
    source: str
    error: ModalrunError | None = None


class Buffer(Generic[T]):
    """Items in order, many writers in one event loop, one reader in another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int = LIMIT) -> None:
        self._loop = loop
        self._limit = limit
        self._items: list[T] = []
        self._size = 0
        self._closed = False
        self._news = threading.Condition()
        self._room = asyncio.Event()

    async def put(self, item: T, size: int) -> None:
        """Add an item of `size` characters, when there is room; call it in the event loop."""
        while self._size >= self._limit:
            self._room.clear()
            await self._room.wait()
        with self._news:
            self._items.append(item)
            self._size += size + _OVERHEAD
            self._news.notify()

    def take(self) -> list[T]:
        """Wait until there is something, and take all of it; empty once it is closed."""
        with self._news:
            while not self._items and not self._closed:
                self._news.wait()
            items, self._items = self._items, []
            full, self._size = self._size >= self._limit, 0
        if full:
            self._loop.call_soon_threadsafe(self._room.set)
        return items if not self._closed else []

    def close(self) -> None:
        """End the reader's waiting; what has not been taken is dropped."""
        with self._news:
            self._closed = True
            self._news.notify_all()
