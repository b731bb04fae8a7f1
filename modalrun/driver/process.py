"""What the processes that run steps have in common: how they begin, speak and end."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from modalrun.run.contract import END_REASON_FILE


class Terminated(BaseException):
    """SIGTERM arrived. Not an Exception, so that neither a retry nor user code takes it for one."""


def buffer_lines() -> None:
    """Line buffering: a line is one write, and leaves when it is complete."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]


def print_traceback(error: BaseException) -> None:
    """Print a step's exception from the user's own first line on; whole where there is none."""
    root = str(Path.cwd())
    trace = error.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith(root):
        trace = trace.tb_next
    # One write, so that it stays together among what else is printed.
    lines = traceback.format_exception(type(error), error, trace or error.__traceback__)
    sys.stderr.write("".join(lines))
    sys.stderr.flush()


def supervisors_reason() -> str | None:
    """Why the supervisor ends this process; None where it isn't the one who does."""
    with contextlib.suppress(OSError, KeyError):
        return Path(os.environ[END_REASON_FILE]).read_text(encoding="utf-8")
    return None


def leave(code: int) -> NoReturn:
    """End the process without tearing the interpreter down, which takes ZenML about a second."""
    for stream in (sys.stdout, sys.stderr):
        # In a signal handler the stream may be in the middle of a write.
        with contextlib.suppress(RuntimeError, OSError, ValueError):
            stream.flush()
    os._exit(code)
