"""Encode events between the lines of a sandbox's output. Pure.

An event is a line of output: the ASCII record separator, then a JSON object. So it travels with the
logs: live, in order, kept as long as they are, without polling. The driver prints the events of its
steps to its stdout; each step's process prints that it begins; where several steps share one
sandbox, the runner prints on both streams which step prints next.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

MARK = "\x1e"
PREFIX = f'{MARK}{{"modalrun"'
"""What each event begins with; see `event_proof`."""

StepState = Literal[
    "waiting",
    "starting",
    "running",
    "completed",
    "cached",
    "failed",
    "retrying",
    "stopped",
    "not run",
]
FINAL: frozenset[StepState] = frozenset({"completed", "cached", "failed", "stopped", "not run"})


@dataclass(frozen=True)
class StepEvent:
    """A new state of one step. Times are in seconds since the epoch.

    Attributes:
        step: The step's invocation id.
        state: Its new state. "waiting": its sandbox was created early; with `wasted`, that sandbox
            has ended unused. "starting": Modal is asked for a sandbox. "running" with a sandbox:
            the sandbox exists; see `begun`.
        at: When it reached the state.
        attempt: Number of the attempt, from 1; all retries count.
        sandbox: Modal's id of the attempt's sandbox.
        gpu: Its GPU as Modal writes it; None for a CPU sandbox.
        cpu: Its CPU cores; None for Modal's default.
        memory: Its memory in MiB; None for Modal's default.
        exit_code: The sandbox's exit code.
        reason: Why the attempt ended, or why the step is not run; a sentence. With "retrying" of a
            step with its own sandbox, also what happens next.
        wasted: Seconds that a sandbox created early has waited.
        began: When the attempt began, by the step's process or by a replacement driver.
    """

    step: str
    state: StepState
    at: float
    attempt: int = 1
    sandbox: str | None = None
    gpu: str | None = None
    cpu: float | None = None
    memory: int | None = None
    exit_code: int | None = None
    reason: str | None = None
    wasted: float | None = None
    began: float | None = None

    @property
    def begun(self) -> bool:
        """Whether a "running" step has begun; its own sandbox takes seconds to start."""
        return self.state == "running" and (self.sandbox is None or self.began is not None)


@dataclass(frozen=True)
class LinesOf:
    """The step that prints the following lines of this stream; None for no step."""

    step: str | None = None


Event = StepEvent | LinesOf
_KINDS: dict[str, type[StepEvent] | type[LinesOf]] = {"step": StepEvent, "lines": LinesOf}


def line(event: Event) -> str:
    """Encode an event as a line of output, with its line feed."""
    kind = "step" if isinstance(event, StepEvent) else "lines"
    values = {name: value for name, value in asdict(event).items() if value is not None}
    return f"{MARK}{json.dumps({'modalrun': kind, **values})}\n"


def read(text: str) -> Event | None:
    """Decode the event in a line of output; None for any other line."""
    if not text.startswith(PREFIX):
        return None
    try:
        values: Any = json.loads(text[len(MARK) :])
        return _KINDS[values.pop("modalrun")](**values)
    except (ValueError, TypeError, KeyError, AttributeError):
        # A user's program has printed it.
        return None
