"""Count calls, and end a server that has been idle for long enough."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from modalrun.localmodal.signals import Signal


class Activity:
    """The calls in progress, and the idle timer.

    Attributes:
        calls: How many calls are in progress.
        quiet: Fires when the last call has ended.
    """

    def __init__(
        self,
        idle_timeout: float,
        start_lock: Path,
        *,
        is_busy: Callable[[], bool],
        on_idle: Callable[[], None],
    ) -> None:
        """
        Args:
            idle_timeout: Seconds without a call and without work; 0 for no limit.
            start_lock: The lock that a command holds while it looks for or starts a server.
            is_busy: Whether the server has work to do without calls.
            on_idle: Called when the timeout has passed, with the lock held.
        """
        self.calls = 0
        self.quiet = Signal()
        self._idle_timeout = idle_timeout
        self._start_lock = start_lock
        self._is_busy = is_busy
        self._on_idle = on_idle
        self._timer: asyncio.TimerHandle | None = None

    def count_call(self, change: int) -> None:
        """Add a call (+1) or end one (-1)."""
        self.calls += change
        if not self.calls:
            self.quiet.fire()
        self.note()

    def note(self) -> None:
        """Restart the idle timer; it runs only while the server is idle."""
        self.cancel()
        if self._idle_timeout and not self.calls and not self._is_busy():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._idle_timeout, self._time_out)

    def cancel(self) -> None:
        """Stop the idle timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        # A command that holds this lock relies on the server: stay alive then.
        lock = os.open(self._start_lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            self.note()
            return
        self._on_idle()
