"""Encode events between the lines of a sandbox's output. Pure.

An event is a line of output: the ASCII record separator, then a JSON object. So it travels with the
logs: live, in order, kept as long as they are, without polling. The driver prints the events of its
steps to its stdout; each step's process prints that it begins; where several steps share one
sandbox, its first process or the runner prints on both streams which step prints next.

User code can print to the same streams, so a line is an event only if each of its values is valid.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Literal

from pydantic_core import from_json

from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.event_proof import MARK, PREFIX
from modalrun.run.values import (
    CHECKED,
    LONGEST_TEXT,
    Cores,
    ExitCode,
    Moment,
    Number,
    SandboxId,
    Seconds,
    StepName,
    Text,
    Word,
    adapter,
)
from modalrun.util.text import one_line

StepState = Literal[
    "starting",
    "running",
    "completed",
    "cached",
    "skipped",
    "failed",
    "retrying",
    "stopped",
    "not run",
]
FINAL: frozenset[StepState] = frozenset(
    {"completed", "cached", "skipped", "failed", "stopped", "not run"}
)


@dataclass(frozen=True)
class StepEvent:
    """A new state of one step. Times are in seconds since the epoch.

    Attributes:
        step: The step's invocation id.
        state: Its new state. "starting": Modal is asked for a sandbox. "running" with a sandbox:
            the sandbox exists; see `begun`. "skipped": its result is that of an earlier run.
        at: When it reached the state.
        attempt: Number of the attempt, from 1; each sandbox counts, also of those that were lost.
        sandbox: Modal's id of the attempt's sandbox.
        gpu: Its GPU as Modal writes it; None for a CPU sandbox.
        cpu: Its CPU cores; None if not known.
        memory: Its memory in MiB; None if not known.
        exit_code: The sandbox's exit code.
        reason: Why the attempt ended, or why the step is not run; a sentence. With "retrying",
            also what happens next.
        awaits: With "starting": what Modal has no place for yet ("H100").
        following: With `awaits`: the GPU type that is asked for next.
        began: When the attempt began, by the step's process or by a replacement driver.
        restarts: How many of the step's sandboxes before this one were lost.
    """

    __pydantic_config__ = CHECKED

    step: StepName
    state: StepState
    at: Moment
    attempt: Number = 1
    sandbox: SandboxId | None = None
    gpu: Word | None = None
    cpu: Cores | None = None
    memory: Number | None = None
    exit_code: ExitCode | None = None
    reason: Text | None = None
    began: Moment | None = None
    awaits: Word | None = None
    following: Word | None = None
    restarts: Number = 0

    @property
    def tries(self) -> int:
        """Number of the attempt as ZenML counts them, from 1."""
        return self.attempt - self.restarts

    @property
    def capacity_wait(self) -> CapacityWait | None:
        """What a "starting" step waits for, if Modal has no place for it."""
        return (self.awaits and CapacityWait(self.awaits, self.following, self.at)) or None

    @property
    def begun(self) -> bool:
        """Whether a "running" step has begun; its own sandbox takes seconds to start."""
        return self.state == "running" and (self.sandbox is None or self.began is not None)


@dataclass(frozen=True)
class LinesOf:
    """The step that prints the following lines of this stream; None for no step.

    Attributes:
        step: Its invocation id.
        attempt: The number of its attempt, in a step sandbox.
    """

    __pydantic_config__ = CHECKED

    step: StepName | None = None
    attempt: Number = 1


@dataclass(frozen=True)
class OrderEnd:
    """A step has ended in a sandbox that is kept warm.

    Attributes:
        order: The secret of the order, which no other step knows.
        exit_code: As that of a sandbox of the step's own.
    """

    __pydantic_config__ = CHECKED

    order: Word
    exit_code: ExitCode


@dataclass(frozen=True)
class Idle:
    """A sandbox that is kept warm has waited for another step.

    Attributes:
        step: The step before.
        sandbox: Modal's id of the sandbox.
        seconds: How long it has waited.
        gpu: Its GPU as Modal writes it; None for a CPU sandbox.
    """

    __pydantic_config__ = CHECKED

    step: StepName
    sandbox: SandboxId
    seconds: Seconds
    gpu: Word | None = None


@dataclass(frozen=True)
class Redraw:
    """The present state of a line that a step redraws, such as a progress bar.

    As an event it tells of a step in a sandbox for several: there, such a line comes when whole.

    Attributes:
        step: Its invocation id.
        text: The state; empty once the line is finished.
    """

    __pydantic_config__ = CHECKED

    step: StepName
    text: Text


@dataclass(frozen=True)
class Used:
    """What a step has used so far, told when its memory rises: Modal may end its whole sandbox.

    Attributes:
        readings: Its begin and a sample, as `run/usage_log.py` writes them.
    """

    __pydantic_config__ = CHECKED

    readings: tuple[Text, ...]


Event = StepEvent | LinesOf | OrderEnd | Idle | Redraw | Used
_MARK = PREFIX.encode()
_LONGEST = 65_536
"""Bytes of an event at most."""

_KINDS: dict[str, type[Event]] = {
    "step": StepEvent,
    "lines": LinesOf,
    "order": OrderEnd,
    "idle": Idle,
    "redraw": Redraw,
    "used": Used,
}


def line(event: Event) -> str:
    """Encode an event as a line of output, with its line feed; a reason becomes one line."""
    if isinstance(event, StepEvent) and event.reason is not None:
        event = replace(event, reason=one_line(event.reason, LONGEST_TEXT))
    kind = next(kind for kind, cls in _KINDS.items() if cls is type(event))
    values = {name: value for name, value in asdict(event).items() if value is not None}
    return f"{MARK}{json.dumps({'modalrun': kind, **values})}\n"


def read(text: str) -> Event | None:
    """Decode the event in a line of output; None for any other line."""
    return split(text)[1] if text.startswith(PREFIX) else None


def split(text: str) -> tuple[str, Event | None]:
    """Split off the event that a line ends with; a print without a line feed may precede it."""
    # JSON escapes the mark within an event.
    start = text.rfind(PREFIX)
    if start < 0:
        return text, None
    try:
        values = from_json(text[start + len(MARK) :], allow_inf_nan=False)
        return text[:start], adapter(_KINDS[values.pop("modalrun")]).validate_python(values)
    except (ValueError, TypeError, KeyError, AttributeError):
        # User code has printed it. `ValidationError` is a ValueError.
        return text, None


class EventScanner:
    """Find the events in a stream of bytes, most of which are something else."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that a piece of the stream completes."""
        data, found = self._pending + data, []
        while (start := data.find(_MARK)) >= 0 and (end := data.find(b"\n", start)) >= 0:
            if (event := read(data[start:end].decode("utf-8", "replace"))) is not None:
                found.append(event)
            data = data[end + 1 :]
        self._pending = data[start:] if start >= 0 else data[-len(_MARK) :]
        if len(self._pending) > _LONGEST:
            self._pending = b""
        return found
