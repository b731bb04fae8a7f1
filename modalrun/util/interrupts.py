"""SIGINT and SIGTERM: never lost, and never between two things that belong together."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from modalrun.errors import Interrupted

_HANDLED = (signal.SIGINT, signal.SIGTERM)
_arrived: list[int] = []
_listeners: list[Callable[[int], None]] = []


def install() -> None:
    """Raise KeyboardInterrupt on SIGINT and `Interrupted` on SIGTERM, and remember that it came.

    A SIGINT that the parent process has set to be ignored (`nohup`, `&` in a script) stays so.
    """
    _arrived.clear()
    for number in _HANDLED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _arrive)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """`install` for a block, in a program that isn't ours; in another thread than its main one,
    where Python has no signals, nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _HANDLED}
    install()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def check() -> None:
    """Raise for a signal that arrived and whose exception got lost.

    Modal's SDK drops a KeyboardInterrupt that comes while its coroutine ends (1.6.4).
    """
    if _arrived:
        raise exception(_arrived[-1])


def interrupt() -> None:
    """Have the main thread leave what it waits for, as SIGTERM does, if `install` was called."""
    if signal.getsignal(signal.SIGTERM) is _arrive:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def forget() -> None:
    """Take what has arrived for dealt with."""
    _arrived.clear()


def exception(number: int) -> BaseException:
    """What stands for a signal as an exception."""
    return Interrupted() if number == signal.SIGTERM else KeyboardInterrupt()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Keep both signals waiting until the block has ended; for short blocks only."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def listening(listener: Callable[[int], None]) -> Iterator[None]:
    """Hand signals to `listener` instead of raising, also one that has arrived before.

    Args:
        listener: Called with the signal's number, in the main thread between any two steps of it:
            it must be reentrant, as `queue.SimpleQueue.put` is.
    """
    _listeners.append(listener)
    try:
        while _arrived:
            listener(_arrived.pop(0))
        yield
    finally:
        _listeners.remove(listener)


@contextlib.contextmanager
def keys(terminal: int, listener: Callable[[str], None]) -> Iterator[None]:
    """Hand each key pressed to `listener`, from a thread, without waiting for Enter.

    Args:
        terminal: The descriptor of a terminal.
        listener: Called with each key; with "" when the terminal is gone.
    """
    before = termios.tcgetattr(terminal)
    wanted = termios.tcgetattr(terminal)
    # Ctrl-C stays a signal, and output is processed as ever.
    wanted[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(terminal, termios.TCSANOW, wanted)
    end_read, end_write = os.pipe()

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

    thread = threading.Thread(target=read, name="keys", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.close(end_write)
        thread.join()
        os.close(end_read)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSANOW, before)


def _arrive(number: int, _frame: FrameType | None) -> None:
    if _listeners:
        _listeners[-1](number)
        return
    _arrived.append(number)
    raise exception(number)
