"""Repeat a call while a connection is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from modalrun.errors import ConnectionLostError
from modalrun.util.backoff import pauses

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds that a lost connection is tried again before giving up."""


def while_connection_lost(call: Callable[[], T], say: Callable[[str], None]) -> T:
    """Repeat a call while it raises ConnectionLostError, for up to a minute; return its result.

    Args:
        call: Reads something; it must change nothing.
        say: Receives a sentence when the first attempt has failed.
    """
    until = time.monotonic() + PATIENCE
    waits = pauses()
    said = False
    while True:
        try:
            return call()
        except ConnectionLostError as error:
            if time.monotonic() > until:
                raise
            if not said:
                say(f"{error.problem} Trying again for up to {PATIENCE:.0f} s.")
                said = True
        time.sleep(next(waits))
