"""Write log lines and step events from a process in a sandbox."""

from __future__ import annotations

import sys
import time
import traceback
from typing import Any

from modalrun.run import events
from modalrun.run.events import StepEvent, StepState


def log_line(text: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def emit_step_event(step: str, state: StepState, **fields: Any) -> None:
    """Write a step's new state to stdout as an event; `fields` are more fields of `StepEvent`."""
    write_event(StepEvent(step, state, at=time.time(), **fields))


def write_event(event: StepEvent) -> None:
    """Write a finished event to stdout, and not to the logs that ZenML stores."""
    stream = sys.stdout
    if not getattr(stream, "write_through", False):
        stream.flush()
    # ZenML replaces the stream's own `write`.
    stream.buffer.write(events.line(event).encode())
    stream.buffer.flush()


def one_line(error: BaseException) -> str:
    """Return the last line of an exception's traceback, cut to fit into an event."""
    return traceback.format_exception_only(error)[-1].strip()[:500]
