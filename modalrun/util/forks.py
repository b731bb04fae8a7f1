"""Keep a process that user code has forked from doing the work of its parent."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def ended() -> Iterator[None]:
    """End a process that was forked in the block and leaves it, as `fork` in a script may."""
    process = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != process:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(1 if sys.exc_info()[0] is not None else 0)
