"""Read control lines from the standard input of a run sandbox.

The supervisor passes its standard input on to its child as the descriptor that `CONTROL` names, so
that the user's code has an empty one. A driver or runner reads `stop`, a graceful stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from modalrun.run.contract import CONTROL, STOP, STOP_FILE


def watch(on_stop: Callable[[], object]) -> list[int]:
    """Call `on_stop` in the running event loop, without a thread, when a stop is requested.

    Returns:
        The descriptors that it reads.
    """
    descriptor, loop = _descriptor(), asyncio.get_running_loop()
    if descriptor is None:
        return []
    pending = b""

    def read() -> None:
        nonlocal pending
        chunk = os.read(descriptor, 1024)
        if not chunk:
            loop.remove_reader(descriptor)
        *lines, pending = (pending + chunk).split(b"\n")
        if any(line.strip() == STOP.encode() for line in lines):
            on_stop()

    # A regular file or a device can't be watched, and holds no requests.
    with contextlib.suppress(PermissionError):
        loop.add_reader(descriptor, read)
    return [descriptor]


def listen(on_stop: Callable[[], object]) -> None:
    """Call `on_stop` from another thread when a graceful stop is requested.

    It is called at once if an earlier process of this sandbox has read the request.
    """
    requested = Path(os.environ[STOP_FILE]) if STOP_FILE in os.environ else None
    if requested is not None and requested.exists():
        on_stop()
    descriptor = _descriptor()
    if descriptor is None:
        return

    def read() -> None:
        with contextlib.suppress(OSError), os.fdopen(descriptor, encoding="utf-8") as lines:
            for line in lines:
                if line.strip() == STOP:
                    if requested is not None:
                        # First: this process may die before it has stopped anything.
                        requested.touch()
                    on_stop()

    threading.Thread(target=read, name="control", daemon=True).start()


def _descriptor() -> int | None:
    """Return the descriptor of the control lines; None if there is none."""
    try:
        descriptor = int(os.environ.pop(CONTROL))
        # Programs that the user's code starts must not read them.
        os.set_inheritable(descriptor, False)
    except (KeyError, ValueError, OSError):
        return None
    return descriptor
