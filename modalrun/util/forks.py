"""Keep a process that user code has forked from doing the work of its parent."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

_DEFAULTS: dict[signal.Signals, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}
_handlers: dict[signal.Signals, Any] = {}
"""How this process handles signals while user code runs."""


def _handle_as_a_script() -> None:
    """Let the pool of a step end its workers: ZenML's handlers ask its store, and raise."""
    for number, handler in _handlers.items():
        # Else it is user code's own.
        if signal.getsignal(number) == handler:
            signal.signal(number, _DEFAULTS[number])


if hasattr(os, "register_at_fork"):
    # Early: what is raised in a later function of this kind is ignored.
    os.register_at_fork(after_in_child=_handle_as_a_script)


@contextlib.contextmanager
def ended() -> Iterator[None]:
    """End a process that was forked in the block and leaves it, as `fork` in a script may.

    Until then it handles signals as a script does.
    """
    process = os.getpid()
    _handlers.update({number: signal.getsignal(number) for number in _DEFAULTS})
    try:
        yield
    finally:
        if os.getpid() != process:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(1 if sys.exc_info()[0] is not None else 0)
