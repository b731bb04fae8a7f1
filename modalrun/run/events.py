"""What the processes of a run tell those who look on, between the lines that users print.

An event is a line of a sandbox's own output: the ASCII record separator, then a JSON object. So it
travels with the logs: it comes live, in order, is kept as long as they are, and needs no polling.
The driver writes the events of its steps to its stdout, and each step's own process that it begins;
where several steps share one sandbox, the runner says on both streams whose lines follow. Pure.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

MARK = "\x1e"

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
    """The driver's word on one step.

    Attributes:
        step: The step's invocation id.
        state: Its state from now on. "waiting": its sandbox was created before its turn; with
            `wasted`, that sandbox has ended without having been used. "starting": Modal is being
            asked for a sandbox. "running" with a sandbox: that is there; see `begun`.
        at: When, in seconds since the epoch.
        attempt: Which sandbox of this step it is about, from 1; all retries count.
        sandbox: Modal's id of that sandbox, once there is one.
        gpu: Its GPU as Modal writes it; None for a CPU sandbox.
        cpu: Its CPU cores; None for Modal's default.
        memory: Its memory in MiB; None for Modal's default.
        exit_code: Of the sandbox, once it has ended.
        reason: Why it ended as it did, or why it is not run; a sentence. With "retrying" of a step
            that has sandboxes of its own also what happens next.
        wasted: Seconds for which a sandbox that was created early waited for its go.
        began: When its attempt began, where the step's own process says this, or a driver that
            has come later.
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
        """Whether a step that is "running" has begun, so that its time counts.

        A sandbox of a step's own takes seconds to start; ZenML's record begins after that.
        """
        return self.state == "running" and (self.sandbox is None or self.began is not None)


@dataclass(frozen=True)
class LinesOf:
    """What follows on this stream was printed by this step; by no step in particular for None."""

    step: str | None


Event = StepEvent | LinesOf
_KINDS: dict[str, type[StepEvent] | type[LinesOf]] = {"step": StepEvent, "lines": LinesOf}


def line(event: Event) -> str:
    """An event as a line of output, with its line end."""
    kind = next(name for name, cls in _KINDS.items() if isinstance(event, cls))
    values = {name: value for name, value in asdict(event).items() if value is not None}
    return f"{MARK}{json.dumps({'modalrun': kind, **values})}\n"


def read(text: str) -> Event | None:
    """The event in a line of output; None where a user's program printed the line.

    Fields that a newer modalrun has added are passed over.
    """
    if not text.startswith(MARK):
        return None
    try:
        held: Any = json.loads(text[len(MARK) :])
        cls = _KINDS[held.pop("modalrun")]
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in held.items() if name in known}
        return cls(**{"step": None, **values} if cls is LinesOf else values)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
