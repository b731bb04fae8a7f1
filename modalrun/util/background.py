"""Call a function in another thread, so that signals and a deadline end the wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from modalrun.errors import ConnectionLostError, Interrupted
from modalrun.util import interrupts

T = TypeVar("T")

_CHECK_SECONDS = 0.5


def in_background(
    call: Callable[[], T],
    seconds: float | None = None,
    *,
    grace: float = 0.0,
    give_up: Callable[[], object] = lambda: None,
) -> T:
    """Return the result of a call in another thread; raise what it raises.

    A signal's exception is raised here: Modal's SDK would now and then drop it (1.6.4). The call
    then goes on, in a thread that does not keep the process alive.

    Args:
        call: The call.
        seconds: How long to wait; None for ever.
        give_up: Called when a signal comes: it may end the call.
        grace: How many seconds a signal waits for the call, so that what it creates can be undone.

    Raises:
        ConnectionLostError: The time is up.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=work, name="call", daemon=True)
    until = None if seconds is None else time.monotonic() + seconds
    try:
        # Inside: a signal may come as soon as it runs.
        thread.start()
        while not wait([future], timeout=_CHECK_SECONDS).done:
            # The exception of a signal is lost where Python can raise none, as in a destructor.
            interrupts.check()
            if until is not None and time.monotonic() > until:
                raise ConnectionLostError(f"Modal has not answered for {seconds:.0f} s.")
    except (KeyboardInterrupt, Interrupted):
        give_up()
        wait([future], timeout=grace)
        raise
    return future.result()
