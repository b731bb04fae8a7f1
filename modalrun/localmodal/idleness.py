"""Notice when something has not been used for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modalrun.localmodal.signals import Signal


class Idleness:
    """The time since anybody used a server or a sandbox.

    Attributes:
        users: How many use it now.
        quiet: Fires when the last of them ends.
    """

    def __init__(self, limit: float) -> None:
        """
        Args:
            limit: Seconds after which it is idle; 0 for never.
        """
        self.users = 0
        self.quiet = Signal()
        self._limit = limit
        self._on_idle: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, on_idle: Callable[[], None]) -> None:
        """Count from now on; call `on_idle` once it is idle."""
        self._on_idle = on_idle
        self.touch()

    def touch(self) -> None:
        """Count from the start, unless somebody uses it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._limit and self._on_idle and not self.users:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._limit, self._on_idle)

    def stop(self) -> None:
        """Count no more."""
        self._on_idle = None
        self.touch()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count nothing meanwhile."""
        self.users += 1
        self.touch()
        try:
            yield
        finally:
            self.users -= 1
            if not self.users:
                self.quiet.fire()
            self.touch()
