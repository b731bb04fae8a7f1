"""Call a function in another thread, so that signals and a deadline end the wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

from modalrun.errors import ConnectionLostError

T = TypeVar("T")


def in_background(call: Callable[[], T], seconds: float | None = None) -> T:
    """Return the result of a call in another thread; raise what it raises.

    A signal's exception is raised here: Modal's SDK would now and then drop it (1.6.4). The call
    then goes on, in a thread that does not keep the process alive.

    Args:
        call: The call.
        seconds: How long to wait; None for ever.

    Raises:
        ConnectionLostError: The time is up.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="call", daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except FutureTimeoutError:
        if future.done():
            raise
        raise ConnectionLostError(f"Modal has not answered for {seconds:.0f} s.") from None
