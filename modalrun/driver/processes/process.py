"""Share how the processes that run steps begin, print and end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Awaitable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from modalrun.driver.processes.privileges import prctl
from modalrun.errors import ModalrunError
from modalrun.run import contract, notes
from modalrun.run.reporting import log_line

TERMINATE_SECONDS = 20.0
"""How long the termination of all step sandboxes may take."""

_PR_SET_PDEATHSIG = 1

_ENGINE = re.compile(r"/(?:modalrun/(?:driver|zenml_api)|[a-z]+-packages/zenml)/")
"""What calls the user's code."""

_OURS = re.compile(r"/modalrun/(?:driver|zenml_api)/")
"""What raises the failure of a step in another sandbox."""

EXIT_CODES = {
    "completed": contract.EXIT_COMPLETED,
    "failed": contract.EXIT_FAILED,
    "stopped": contract.EXIT_TERMINATED,
    "running": contract.EXIT_UNRECORDED,
    "not run": contract.EXIT_UNRECORDED,
}
"""The exit code that reports what ZenML has recorded of a step or a dynamic run."""


class Terminated(BaseException):
    """Signal that SIGTERM arrived. No Exception, so that no retry and no user code catches it."""


class Signals:
    """Handle SIGTERM: unwind the user's code; anywhere else end the process at once.

    The step's record then still says `running`, and the driver decides what follows. Only at the
    sandbox's deadline it is the step that has failed. Once the user's code has returned, its
    success is recorded first: it must not run again.

    Attributes:
        came: Whether SIGTERM came.
    """

    def __init__(self) -> None:
        self.came = False
        self._began = False
        self._unwinds = False
        self._returned = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.came or self._returned:
            return
        self.came = True
        if self._unwinds:
            raise Terminated(signal.Signals(signum).name)
        if (reason := self.reason()) is not None:
            if not self._began:
                notes.leave("reason", f"{reason} {contract.NOT_BEGUN}")
            # The supervisor records the failure; a signal handler can't safely do it.
            leave(contract.EXIT_UNRECORDED)
        die(signal.SIGTERM)

    @contextlib.contextmanager
    def in_user_code(self) -> Iterator[None]:
        """Raise `Terminated` in the main thread if SIGTERM comes during the block."""
        self._began = self._unwinds = True
        try:
            yield
            # ZenML's handler would interrupt what stores the outputs.
            signal.signal(signal.SIGTERM, self)
            self._returned = True
        finally:
            self._unwinds = False

    def reason(self) -> str | None:
        """Return why the step has failed according to the supervisor; None if it has not."""
        return supervisors_reason()

    def leave(self) -> NoReturn:
        """End the process for the signal; the supervisor knows whether somebody asked for it."""
        if self.reason() is not None:
            leave(contract.EXIT_TERMINATED)
        die(signal.SIGTERM)


def die_with_parent() -> None:
    """End this process when its parent is killed: what it does will be done again elsewhere.

    Where a sandbox is a container, its first process ends it anyway.
    """
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def buffer_lines() -> None:
    """Buffer output by line, so that each line is one write."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]


def print_traceback(error: BaseException) -> None:
    """Print an exception from the user's own first line on, or whole if there is none.

    A dynamic pipeline's function calls its steps through ZenML and modalrun: those lines are left
    out, too. The same holds for the exceptions that have led to it.
    """
    root = os.environ.get("ZENML_CUSTOM_SOURCE_ROOT", "")
    shown = traceback.TracebackException.from_exception(error)
    chain = list(_chain(shown))
    if any(frame.filename.startswith(root) for one in chain for frame in one.stack):
        for one in chain:
            _leave_out_engine(one.stack, root)
    text = "".join(shown.format())
    # User code may have closed the stream, or its descriptor.
    try:
        # One write, so that nothing else is printed in between.
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="replace"))


def _chain(shown: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield a traceback, and those that are printed with it."""
    yield shown
    # Python 3.10 has no exception groups.
    inner = getattr(shown, "exceptions", None) or ()
    for one in (shown.__cause__, shown.__context__, *inner):
        if one is not None:
            yield from _chain(one)


def _leave_out_engine(stack: traceback.StackSummary, root: str) -> None:
    """Leave out what comes before the user's first line, and what calls the user's later ones."""
    own = [n for n, frame in enumerate(stack) if frame.filename.startswith(root)]
    first, last = (own[0], own[-1]) if own else (-1, len(stack))
    if any(_OURS.search(frame.filename) for frame in stack[last + 1 :]):
        # A step in another sandbox has failed: the lines below the user's last one are not theirs.
        last = len(stack)
    stack[:] = [
        frame
        for n, frame in enumerate(stack)
        if n in own or n > last or (n > first and not _ENGINE.search(frame.filename))
    ]


def reason_of(error: Exception) -> str:
    """Return why a step's end could not be waited for or recorded; log the traceback of a bug."""
    if isinstance(error, ModalrunError):
        return error.message
    log_line("".join(traceback.format_exception(error)).rstrip())
    return f"Internal error of modalrun: {error}"


def supervisors_reason() -> str | None:
    """Return why the supervisor ends this process at its deadline; None if it does not."""
    reason = termination_reason()
    from_outside = {contract.TERMINATED_REASON, contract.PREEMPTED_REASON}
    return None if reason in from_outside else reason


def termination_clause() -> str:
    """Return `termination_reason` as a part of a sentence."""
    reason = termination_reason()
    return f"{reason[:1].lower()}{reason[1:].rstrip('.')}"


def termination_reason() -> str:
    """Return why this process gets SIGTERM: its deadline, or a signal to its sandbox."""
    with contextlib.suppress(OSError, KeyError):
        return Path(os.environ[contract.END_REASON_FILE]).read_text(encoding="utf-8")
    return contract.TERMINATED_REASON


async def log_failed_termination(termination: Awaitable[None]) -> None:
    """Wait at most `TERMINATE_SECONDS` for a termination; log its failure."""
    try:
        await asyncio.wait_for(termination, TERMINATE_SECONDS)
    except Exception as error:
        log_line(f"The step sandboxes may still run: {type(error).__name__}: {error}")


def leave(code: int) -> NoReturn:
    """End the process with a code that is meant: user code has not ended it by `os._exit`.

    The code is written to a file, which the supervisor compares. The interpreter isn't torn down,
    which takes ZenML about a second.
    """
    with (
        contextlib.suppress(KeyError, OSError),
        # Overwritten, because a full disk has no room for a new file.
        Path(os.environ[contract.EXIT_CODE_FILE]).open("r+", encoding="ascii") as file,
    ):
        file.write(f"{code:4}")
    flush_streams()
    os._exit(code)


def die(number: int) -> NoReturn:
    """End the process by a signal, so that its parent sees which one ended it."""
    flush_streams()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pause()
    raise AssertionError


def flush_streams() -> None:
    """Flush the standard streams, whatever user code has made of them."""
    for stream in (sys.stdout, sys.stderr):
        # In a signal handler the stream may be in the middle of a write.
        with contextlib.suppress(RuntimeError, OSError, ValueError, AttributeError):
            stream.flush()
