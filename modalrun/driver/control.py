"""What others may say to a run while it goes: lines on the standard input of its run sandbox.

The supervisor passes its own standard input on to its child as a descriptor that `CONTROL` names,
so that the user's code has an empty one. A driver understands `stop`, a graceful stop; a step whose
sandbox was created before its turn waits for `go`. What is not understood is passed over: a newer
modalrun may say more.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path

from modalrun.run.contract import CONTROL, GO, STOP, STOP_FILE


def listen(on_stop: Callable[[], object]) -> None:
    """Call `on_stop` from a thread of its own when somebody asks for a graceful stop.

    It is called at once where an earlier process of this sandbox was asked. Nothing happens where
    there is no control descriptor, as in a sandbox of an older supervisor.
    """
    asked = Path(os.environ[STOP_FILE]) if STOP_FILE in os.environ else None
    if asked is not None and asked.exists():
        on_stop()
    descriptor = _descriptor()
    if descriptor is None:
        return

    def read() -> None:
        with contextlib.suppress(OSError), os.fdopen(descriptor, encoding="utf-8") as lines:
            for line in lines:
                if line.strip() == STOP:
                    if asked is not None:
                        # First: this process may die before it has stopped anything.
                        asked.touch()
                    on_stop()

    threading.Thread(target=read, name="control", daemon=True).start()


def wait_for_go(seconds: float) -> bool:
    """Wait until it is a step's turn; returns whether it is.

    Args:
        seconds: How long to wait at most.
    """
    descriptor = _descriptor()
    if descriptor is None:
        return False
    deadline, held = time.monotonic() + seconds, b""
    with contextlib.suppress(OSError), os.fdopen(descriptor, "rb", 0) as source:
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([source], [], [], left)[0]:
                break
            if not (piece := source.read(1024)):
                # Whoever could say it is gone.
                break
            held += piece
            *lines, held = held.split(b"\n")
            if GO.encode() in map(bytes.strip, lines):
                return True
    return False


def _descriptor() -> int | None:
    """The descriptor that control lines are read from; None where there is none."""
    try:
        descriptor = int(os.environ.pop(CONTROL))
        # What the user's code starts must not read our lines.
        os.set_inheritable(descriptor, False)
    except (KeyError, ValueError, OSError):
        return None
    return descriptor
