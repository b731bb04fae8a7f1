"""Record when the phases of a submission begin and end: `--debug` shows what waits for what.

A phase is recorded in any thread. Its name is a constant, which holds nothing of the user's.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

DEBUG = "MODALRUN_DEBUG"

WIDTH = 40
"""Characters of the bars."""

LONGEST_START = 30.0
"""A process that is older when a submission begins is a notebook or a script of the user's."""


@dataclass
class Phase:
    """A phase in the seconds of `time.monotonic`; `end` is None while it goes on."""

    name: str
    thread: str
    begin: float
    end: float | None = None
    failed: bool = False


_phases: list[Phase] = []


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Record the block as a phase, if `--debug` is given."""
    if not os.environ.get(DEBUG):
        yield
        return
    one = Phase(name, threading.current_thread().name, time.monotonic())
    _phases.append(one)
    try:
        yield
    except BaseException:
        one.failed = True
        raise
    finally:
        one.end = time.monotonic()


@contextlib.contextmanager
def shown(say: Callable[[str], object]) -> Iterator[None]:
    """Say the phases of the block at its end, also if it fails."""
    _phases.clear()
    try:
        yield
    finally:
        if phases := list(_phases):
            with contextlib.suppress(OSError):
                say("\n".join(lines(phases, _start(phases[0].begin), time.monotonic())))


def lines(phases: Sequence[Phase], start: float, now: float) -> list[str]:
    """Return a line for each phase in order of its begin: begin, end, thread, name and a bar."""
    ordered = sorted(phases, key=lambda one: one.begin)
    names = max(len(one.name) for one in ordered)
    threads = max(len(one.thread) for one in ordered)
    scale = WIDTH / max(now - start, 1e-9)
    found = [f"timeline, in seconds from the start of the command ({now - start:.3f})"]
    for one in ordered:
        end = now if one.end is None else one.end
        left = min(int((one.begin - start) * scale), WIDTH - 1)
        bar = "█" * max(1, round((end - one.begin) * scale))
        mark = "goes on" if one.end is None else "failed" if one.failed else ""
        found.append(
            f"{one.begin - start:7.3f} {end - start:7.3f}  {one.thread:{threads}}"
            f"  {one.name:{names}}  {' ' * left}{bar[: WIDTH - left]} {mark}".rstrip()
        )
    return found


def _start(first: float) -> float:
    """Return when this process was started, if that was for the submission."""
    import psutil

    age = time.time() - psutil.Process().create_time()
    started = time.monotonic() - age
    return started if 0 <= first - started < LONGEST_START else first
