"""Provide a lock that many hold at a time, or one holder alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar

_held: ContextVar[bool] = ContextVar("held", default=False)


class SharedLock:
    """Let many hold it at a time, or one alone; who waits to be alone comes before new others.

    Who holds it may take it again: that does nothing.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holders = 0
        self._waiting = 0
        self._taken = False

    @contextlib.contextmanager
    def held(self, *, alone: bool) -> Iterator[None]:
        """Hold it during the block."""
        if _held.get():
            yield
            return
        with self._changed:
            if alone:
                self._waiting += 1
                try:
                    self._changed.wait_for(lambda: not self._taken and not self._holders)
                    self._taken = True
                finally:
                    self._waiting -= 1
            else:
                self._changed.wait_for(lambda: not self._taken and not self._waiting)
                self._holders += 1
        token = _held.set(True)
        try:
            yield
        finally:
            _held.reset(token)
            with self._changed:
                if alone:
                    self._taken = False
                else:
                    self._holders -= 1
                self._changed.notify_all()
