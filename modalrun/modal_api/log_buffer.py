"""Pass output from the SDK's event loop to the thread that reads it, in bounded memory."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from modalrun.errors import ModalrunError

T = TypeVar("T")

StreamName = Literal["stdout", "stderr"]
STREAMS: tuple[StreamName, ...] = ("stdout", "stderr")

LIMIT = 4 * 1024 * 1024
"""Characters that may wait for the reader before the writers have to wait."""

_OVERHEAD = 200
"""The size of an item besides its text."""


@dataclass(frozen=True)
class OutputChunk:
    """A chunk of a sandbox's output.

    Attributes:
        sandbox: Modal's id of the sandbox.
        source: The stream, or "system" for Modal's own messages (in the history only).
        text: Text; not necessarily whole lines.
        time: When it was written, in seconds since the epoch; None if only its arrival is known.
        missing: Bytes that the live stream no longer holds, after this text.
        lost: Of those, the bytes that the history does not hold either.
    """

    sandbox: str
    source: str
    text: str = ""
    time: float | None = None
    missing: int = 0
    lost: int = 0


@dataclass(frozen=True)
class StreamEnd:
    """The end of a stream; with an error, of what can be read of it."""

    sandbox: str
    source: str
    error: ModalrunError | None = None


class Buffer(Generic[T]):
    """Items in order, from many writers in one event loop to one reader in another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: list[T] = []
        self._size = 0
        self._closed = False
        self._changed = threading.Condition()
        self._room = asyncio.Event()

    async def put(self, item: T, size: int) -> None:
        """Add an item of `size` characters as soon as there is room; for the event loop."""
        while self._size >= LIMIT:
            self._room.clear()
            await self._room.wait()
        with self._changed:
            self._items.append(item)
            self._size += size + _OVERHEAD
            self._changed.notify()

    def take(self) -> list[T]:
        """Wait for items, and return all of them; none once the buffer is closed."""
        with self._changed:
            while not self._items and not self._closed:
                self._changed.wait()
            items, self._items = self._items, []
            full, self._size = self._size >= LIMIT, 0
        if full:
            self._loop.call_soon_threadsafe(self._room.set)
        return items if not self._closed else []

    def close(self) -> None:
        """Release the reader; drop the items that it has not taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
