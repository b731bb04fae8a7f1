"""Wake waiting coroutines without polling."""

from __future__ import annotations

import asyncio


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
