"""Write log lines and events from a process in a sandbox."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from typing import Any, TextIO

from modalrun.run import contract, events
from modalrun.run.event_proof import KEY_BYTES, Prover
from modalrun.run.events import Event, StepEvent, StepState
from modalrun.util import text

_prover = Prover(bytearray())
output_lock = threading.RLock()
"""To be held from `event_line` until the line is written: a later number makes it invalid."""

_own_stdout: list[TextIO] = []
"""The standard output before user code, which may replace it for a while or for good."""


def prove_events() -> None:
    """Take the key with which the supervisor tells this process's events from other output.

    From now on they are written to what is the standard output now.
    """
    _own_stdout[:] = [sys.stdout]
    # Not with `os.read`: the bytes that it returns could not be overwritten.
    key = bytearray(KEY_BYTES)
    with contextlib.suppress(KeyError):
        pipe = int(os.environ.pop(contract.EVENT_KEY))
        os.readv(pipe, [key])
        os.close(pipe)
        _prover.key = key


def forget_key() -> None:
    """Prove no more events in this process: user code follows."""
    _prover.forget()


def event_line(event: Event, stream: int) -> bytes:
    """Encode an event as a line of stdout (1) or stderr (2)."""
    return _prover.prove(events.line(event), stream).encode()


def log_line(message: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def emit_step_event(step: str, state: StepState, **fields: Any) -> None:
    """Write a step's new state to stdout as an event; `fields` are more fields of `StepEvent`."""
    write_event(StepEvent(step, state, **{"at": time.time(), **fields}))


def retry_text(step: str, reason: str | None, retry: int, retries: int, delay: float) -> str:
    """Say that a step has failed, why, and when which retry follows."""
    why = f": {reason.rstrip('.')}" if reason else ""
    when = f" in {delay:g} s" if delay else ""
    return f"Step `{step}` failed{why}; retry {retry} of {retries}{when}."


def write_event(event: Event) -> None:
    """Write a finished event to stdout, and not to the logs that ZenML stores."""
    stream = _own_stdout[0] if _own_stdout else sys.stdout
    with output_lock:
        if not getattr(stream, "write_through", False):
            stream.flush()
        # ZenML replaces the stream's own `write`.
        stream.buffer.write(event_line(event, 1))
        stream.buffer.flush()


def error_line(error: BaseException) -> str:
    """Return the last line of an exception's traceback, cut to fit into an event."""
    return text.one_line(traceback.format_exception_only(error)[-1], 500)
