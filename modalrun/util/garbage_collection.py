"""Pause the garbage collector while much is imported or built."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Collect no garbage during the block, and never examine what it leaves behind.

    Imports allocate much and free nothing: with the collector on, they take a fifth longer.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
