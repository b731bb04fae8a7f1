"""Repeat a call while what it needs is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from modalrun.errors import ConnectionLostError
from modalrun.util.backoff import pauses

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

PATIENCE = 60.0
"""Seconds that a lost connection is tried again before giving up."""


def repeated(
    call: Callable[[], T],
    error_class: type[E] | tuple[type[E], ...],
    seconds: float,
    say: Callable[[E], object],
) -> T:
    """Repeat a call while it raises an error of a class, with growing pauses; return its result.

    Args:
        error_class: Other errors pass through at once.
        seconds: How long to repeat it; the last error passes through.
        say: Gets the first error.
    """
    until, waits, said = time.monotonic() + seconds, pauses(), False
    while True:
        try:
            return call()
        except error_class as error:
            if time.monotonic() > until:
                raise
            if not said:
                say(error)
                said = True
        time.sleep(next(waits))


def while_connection_lost(call: Callable[[], T], say: Callable[[str], None]) -> T:
    """Repeat a call while it raises ConnectionLostError, for up to a minute; return its result.

    Args:
        call: Reads something; it must change nothing.
        say: Receives a sentence when the first attempt has failed.
    """

    def announce(error: ConnectionLostError) -> None:
        say(f"{error.problem} Trying again for up to {PATIENCE:.0f} s.")

    return repeated(call, ConnectionLostError, PATIENCE, announce)
