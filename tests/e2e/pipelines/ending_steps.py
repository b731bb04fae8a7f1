"""The ways in which a step can end its process, or try to."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from zenml import step


class Odd(BaseException):
    """No Exception."""


class Unprintable(Exception):
    """It has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Unpicklable(Exception):
    """It holds what can't be sent anywhere, and can't be made from its text."""

    def __init__(self, one: object, two: object) -> None:
        super().__init__("locked")
        self.parts = (one, two, threading.Lock())


def _raise(error: BaseException) -> NoReturn:
    raise error


def _recur() -> None:
    _recur()


def _import() -> None:
    import no_such_module  # type: ignore[import-not-found]  # noqa: F401


def _signal(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


WAYS: dict[str, Callable[[], object]] = {
    "raises": lambda: _raise(ValueError("bad luck")),
    "exits": lambda: sys.exit(3),
    "exits_well": lambda: sys.exit(0),
    "exits_saying": lambda: sys.exit("that's it"),
    "interrupts": lambda: _raise(KeyboardInterrupt()),
    "interrupts_main": _thread.interrupt_main,
    "leaves_generator": lambda: _raise(GeneratorExit()),
    "odd": lambda: _raise(Odd("odd")),
    "unprintable": lambda: _raise(Unprintable()),
    "unpicklable": lambda: _raise(Unpicklable(1, 2)),
    "recurs": _recur,
    "imports_nothing": _import,
    "needs_memory": lambda: _raise(MemoryError()),
    "leaves_0": lambda: os._exit(0),
    "leaves_1": lambda: os._exit(1),
    "leaves_70": lambda: os._exit(70),
    "leaves_137": lambda: os._exit(137),
    "leaves_143": lambda: os._exit(143),
    "sigterm": _signal(signal.SIGTERM),
    "sigint": _signal(signal.SIGINT),
    "sighup": _signal(signal.SIGHUP),
    "sigkill": _signal(signal.SIGKILL),
    "sigsegv": _signal(signal.SIGSEGV),
    "sigabrt": os.abort,
    "group": lambda: os.killpg(os.getpgrp(), signal.SIGTERM),
}


@step
def end(way: str) -> None:
    """End in one of the ways."""
    print(f"{way} begins", flush=True)
    WAYS[way]()
    threading.Event().wait(5)


@step
def fine(name: str) -> str:
    """End well."""
    print(f"{name} is fine")
    return name
