"""What others may say to a run while it goes: lines on the standard input of its run sandbox.

The supervisor passes its own standard input on to its child as a descriptor that `CONTROL` names,
so that the user's code has an empty one. One line is understood: `stop`, a graceful stop. What is
not understood is passed over: a newer modalrun may say more.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

CONTROL = "MODALRUN_CONTROL"
"""The variable that names the descriptor which control lines are read from."""

STOP = "stop"
"""Start nothing new; let what runs finish; then end the run as stopped."""


def listen(on_stop: Callable[[], None]) -> None:
    """Call `on_stop` from a thread of its own when somebody asks for a graceful stop.

    Nothing happens where there is no control descriptor, as in a sandbox of an older supervisor.
    """
    try:
        descriptor = int(os.environ.pop(CONTROL))
        # What the user's code starts must not read our lines.
        os.set_inheritable(descriptor, False)
    except (KeyError, ValueError, OSError):
        return

    def read() -> None:
        with contextlib.suppress(OSError), os.fdopen(descriptor, encoding="utf-8") as lines:
            for line in lines:
                if line.strip() == STOP:
                    on_stop()

    threading.Thread(target=read, name="control", daemon=True).start()
