"""Wake waiting coroutines without polling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

CHUNK = 128 * 1024


class Signal:
    """Wakes every waiting coroutine each time it fires. `version` counts the firings."""

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None
        self.version = 0

    def fire(self) -> None:
        self.version += 1
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.set_result(None)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds for the next firing; return whether it fired."""
        if self._future is None:
            self._future = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait({self._future}, timeout=timeout)
        return bool(done)


async def follow(
    read: Callable[[int, int], bytes],
    offset: int,
    changed: Signal,
    is_complete: Callable[[], bool],
) -> AsyncGenerator[bytes, None]:
    """Yield chunks from an offset to the end of what grows, as they come.

    Args:
        read: Returns up to so many bytes at an offset.
        offset: The first byte to read.
        changed: Fires when there is more, and when it is complete.
        is_complete: Whether nothing follows.
    """
    while True:
        if data := read(offset, CHUNK):
            yield data
            offset += len(data)
        elif is_complete():
            return
        else:
            await changed.wait()
