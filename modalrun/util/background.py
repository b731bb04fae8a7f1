"""Call a function in another thread, so that signals and a deadline end the wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from modalrun.errors import ConnectionLostError, Interrupted
from modalrun.util import interrupts, timeline

T = TypeVar("T")

_CHECK_SECONDS = 0.5


def begin(call: Callable[[], T], name: str = "call") -> Future[T]:
    """Begin a call in a thread that does not keep the process alive; `outcome` waits for it."""
    future: Future[T] = Future()
    _start(call, future, name)
    return future


def outcome(future: Future[T], waiting: str = "wait") -> T:
    """Wait for a call, unless a signal comes; return its result, or raise what it raised.

    `waiting` is the name of the wait in the timeline.
    """
    if not future.done():
        with timeline.phase(waiting):
            _wait(future, None)
    return future.result()


def _wait(future: Future[T], seconds: float | None) -> None:
    until = None if seconds is None else time.monotonic() + seconds
    while not wait([future], timeout=_CHECK_SECONDS).done:
        # The exception of a signal is lost where Python can raise none, as in a destructor.
        interrupts.check()
        if until is not None and time.monotonic() > until:
            raise ConnectionLostError(f"Modal has not answered for {seconds:.0f} s.")


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
        seconds: How long to wait; None for ever.
        give_up: Called when a signal comes: it may end the call.
        grace: How many seconds a signal waits for the call, so that what it creates can be undone.

    Raises:
        ConnectionLostError: The time is up.
    """
    future: Future[T] = Future()
    try:
        # Inside: a signal may come as soon as it runs.
        _start(call, future, "call")
        _wait(future, seconds)
        return future.result()
    except BaseException as error:
        # Two signals in a lock of Python's end as a RuntimeError.
        cause = interrupts.pending() or error
        if not isinstance(cause, KeyboardInterrupt | Interrupted):
            raise
        give_up()
        # More signals must not leave what the call may be creating.
        with interrupts.deferred():
            wait([future], timeout=grace)
        if cause is error:
            raise
        raise cause from error


def _start(call: Callable[[], T], future: Future[T], name: str) -> None:
    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name=name, daemon=True).start()
