"""Handle SIGINT, SIGTERM and SIGHUP so that none is lost, and none splits what belongs together."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from modalrun.errors import Interrupted

OUTPUT_SECONDS = 0.3
"""How long what is shown after a signal may take."""

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_arrived: list[int] = []
_listeners: list[Callable[[int], None]] = []


def install() -> None:
    """Raise KeyboardInterrupt on SIGINT and `Interrupted` on the others, and record the signal.

    A signal that the parent process ignores (`nohup`, `&` in a script) stays ignored.
    """
    _arrived.clear()
    for number in _HANDLED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _arrive)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Install the handlers for a block of another program; do nothing outside its main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _restored():
        install()
        yield


def check() -> None:
    """Raise for a signal whose exception was lost.

    Modal's SDK drops a KeyboardInterrupt that arrives while its coroutine ends (1.6.4).
    """
    if (error := pending()) is not None:
        raise error


def pending() -> BaseException | None:
    """Return the exception for the first signal that is not handled yet; None if there is none."""
    return exception(_arrived[0]) if _arrived else None


def interrupt() -> None:
    """Interrupt the main thread as SIGTERM does, if the handlers are installed."""
    if signal.getsignal(signal.SIGTERM) is _arrive:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def forget() -> None:
    """Forget the recorded signals: they are handled."""
    _arrived.clear()


def number(error: BaseException) -> int:
    """Return the signal of an exception."""
    return error.number if isinstance(error, Interrupted) else signal.SIGINT


def exception(number: int) -> BaseException:
    """Return the exception for a signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else Interrupted(number)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Delay signals until the block has ended, when the first one takes effect; for short blocks.

    To mask them in this thread would not do: the kernel then picks another thread, and Python
    still runs the handler in the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []
    try:
        with _restored() as before:
            for number, handler in before.items():
                if handler is not signal.SIG_IGN:
                    signal.signal(number, lambda number, _: pending.append(number))
            yield
    finally:
        if pending:
            signal.raise_signal(pending[0])


@contextlib.contextmanager
def listening(listener: Callable[[int], None]) -> Iterator[None]:
    """Pass the numbers of signals to `listener` instead of raising, recorded ones too.

    It is called in the main thread at any point: it must be reentrant, as `SimpleQueue.put` is.
    """
    _listeners.append(listener)
    try:
        while _arrived:
            listener(_arrived.pop(0))
        yield
    finally:
        _listeners.remove(listener)


@contextlib.contextmanager
def waking(wake: Callable[[], object]) -> Iterator[None]:
    """Call `wake` from a thread after each signal.

    The kernel may give a signal to any thread, as of two at once. The main thread, which alone runs
    handlers, does not notice that while it waits.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    end_read, end_write = os.pipe()
    os.set_blocking(end_write, False)

    def watch() -> None:
        while os.read(end_read, 64):
            wake()

    before = signal.set_wakeup_fd(end_write, warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(end_write)
        thread.join()
        os.close(end_read)


def within(seconds: float | None, action: Callable[[], object]) -> None:
    """Run an action; leave it behind in a thread of its own after some seconds (None: never).

    Output whose reader does not read must not hold up what a signal asks for.
    """
    if seconds is None:
        action()
        return
    errors: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=act, name="output", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]


@contextlib.contextmanager
def keys(terminal: int, listener: Callable[[str], None]) -> Iterator[None]:
    """Pass each key of a terminal (a descriptor) to `listener`, without waiting for Enter.

    It is called from a thread, with "" when the terminal is gone.
    """

    def read() -> None:
        while True:
            readable, _, _ = select.select([terminal, end_read], [], [])
            if end_read in readable:
                return
            try:
                data = os.read(terminal, 1)
            except OSError:
                data = b""
            listener(data.decode("ascii", "replace"))
            if not data:
                return

    # Ctrl-C stays a signal, and output is processed as usual.
    with _set_to(tty.setcbreak, terminal):
        end_read, end_write = os.pipe()
        thread = threading.Thread(target=read, name="keys", daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.close(end_write)
            thread.join()
            os.close(end_read)


def raw(terminal: int) -> contextlib.AbstractContextManager[None]:
    """Pass each key of a terminal (a descriptor) on as it is, Ctrl-C too, and echo none."""
    return _set_to(tty.setraw, terminal)


@contextlib.contextmanager
def _set_to(mode: Callable[[int, int], object], terminal: int) -> Iterator[None]:
    before = termios.tcgetattr(terminal)
    mode(terminal, termios.TCSANOW)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSANOW, before)


def _arrive(number: int, _frame: FrameType | None) -> None:
    if _listeners:
        _listeners[-1](number)
        return
    _arrived.append(number)
    raise exception(number)


@contextlib.contextmanager
def _restored() -> Iterator[dict[int, Any]]:
    """Restore the handlers after the block, which gets them."""
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _HANDLED}
    try:
        yield before
    finally:
        for number, handler in before.items():
            # None is a handler of another program than Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
