"""SIGINT and SIGTERM: never lost, and never between two things that belong together."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from modalrun.errors import Interrupted

_HANDLED = (signal.SIGINT, signal.SIGTERM)
_arrived: list[int] = []


def install() -> None:
    """Raise KeyboardInterrupt on SIGINT and `Interrupted` on SIGTERM, and remember that it came.

    A SIGINT that the parent process has set to be ignored (`nohup`, `&` in a script) stays so.
    """
    _arrived.clear()
    for number in _HANDLED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)


def check() -> None:
    """Raise for a signal that arrived and whose exception got lost.

    Modal's SDK drops a KeyboardInterrupt that comes while its coroutine ends (1.6.4).
    """
    if _arrived:
        _raise(_arrived[-1], None)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Keep both signals waiting until the block has ended; for short blocks only."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _raise(number: int, _frame: FrameType | None) -> None:
    _arrived.append(number)
    if number == signal.SIGTERM:
        raise Interrupted
    raise KeyboardInterrupt
