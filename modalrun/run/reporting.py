"""Write talk and step events from a process in a sandbox."""

from __future__ import annotations

import sys
import time
import traceback
from typing import Any

from modalrun.run import events
from modalrun.run.events import StepEvent, StepState


def say(text: str) -> None:
    """Write a line of talk."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def tell(step: str, state: StepState, **more: Any) -> None:
    """Tell those who look on how a step stands now; `more` are fields of the event."""
    event = StepEvent(step, state, at=time.time(), **more)
    sys.stdout.write(events.line(event))
    sys.stdout.flush()


def one_line(error: BaseException) -> str:
    """An exception as the last line of its traceback, cut: it is part of one event."""
    return traceback.format_exception_only(error)[-1].strip()[:500]
