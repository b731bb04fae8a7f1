"""How the sandbox of a step ended, and whose fault that is. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum, IntEnum

from modalrun.run.contract import (
    EXIT_COMPLETED,
    EXIT_KILLED,
    EXIT_OUT_OF_MEMORY,
    EXIT_TERMINATED,
    EXIT_TIMED_OUT,
    EXIT_UNRECORDED,
)


class Status(IntEnum):
    """Modal's own word on the end of a sandbox (`GenericResult.GenericStatus`, SDK 1.6.4)."""

    SUCCESS = 1
    FAILURE = 2
    TERMINATED = 3
    TIMEOUT = 4
    INIT_FAILURE = 5
    INTERNAL_FAILURE = 6
    IDLE_TIMEOUT = 7
    MEMORY_MANAGER_EVICTION = 8
    MEMORY_THRASHING_EVICTION = 9
    KERNEL_OOM_KILL = 10


class Kind(str, Enum):
    """What an end means."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    TERMINATED = "terminated"
    PREEMPTED = "preempted"
    NOT_STARTED = "could not start"
    UNRECORDED = "unrecorded"
    LOST = "lost"
    REFUSED = "refused"


_INFRASTRUCTURE = frozenset(
    {Kind.TERMINATED, Kind.PREEMPTED, Kind.NOT_STARTED, Kind.UNRECORDED, Kind.LOST}
)


@dataclass(frozen=True)
class End:
    """The end of one sandbox.

    Attributes:
        kind: What it means.
        exit_code: Of the sandbox; None where there never was one.
        reason: A sentence.
    """

    kind: Kind
    exit_code: int | None
    reason: str

    @property
    def is_infrastructure(self) -> bool:
        """Whether neither the user's code nor the user's settings are to blame."""
        return self.kind in _INFRASTRUCTURE


LOST = End(Kind.LOST, None, "Modal does not know the sandbox any more.")


def refused(reason: str) -> End:
    """Modal doesn't take what was asked for, and never will: a wrong argument, a missing secret."""
    return End(Kind.REFUSED, None, reason)


def read_end(exit_code: int, status: int | None = None, detail: str = "") -> End:
    """What an exit code and Modal's status mean.

    Modal's status comes first, since an exit code of 137 alone says little. The exit codes are
    those of our supervisor and of the step's process, see `modalrun.run.contract`.

    Args:
        exit_code: Of the sandbox, with Modal's 124 for a timeout and 137 for a termination.
        status: Modal's status, where the SDK gives it.
        detail: Modal's own text about it; left out where it says nothing new.
    """
    by_status = {
        Status.TIMEOUT: (Kind.TIMED_OUT, "The sandbox reached its timeout."),
        Status.INIT_FAILURE: (Kind.NOT_STARTED, "The sandbox could not start."),
        Status.INTERNAL_FAILURE: (Kind.PREEMPTED, "Modal lost the sandbox (internal failure)."),
        Status.IDLE_TIMEOUT: (Kind.TERMINATED, "Modal ended the sandbox because it was idle."),
        Status.MEMORY_MANAGER_EVICTION: (Kind.OUT_OF_MEMORY, _MEMORY),
        Status.MEMORY_THRASHING_EVICTION: (Kind.OUT_OF_MEMORY, _MEMORY),
        Status.KERNEL_OOM_KILL: (Kind.OUT_OF_MEMORY, _MEMORY),
        Status.TERMINATED: (Kind.TERMINATED, "The sandbox was terminated from outside."),
    }
    by_code = {
        EXIT_COMPLETED: (Kind.COMPLETED, "The step completed."),
        EXIT_TIMED_OUT: (Kind.TIMED_OUT, "The step took longer than its timeout."),
        EXIT_OUT_OF_MEMORY: (Kind.OUT_OF_MEMORY, _MEMORY),
        EXIT_KILLED: (Kind.TERMINATED, "The step's process was killed from outside."),
        EXIT_TERMINATED: (Kind.PREEMPTED, "The sandbox was told to end."),
        EXIT_UNRECORDED: (Kind.UNRECORDED, "The step could not record its end in ZenML."),
    }
    known = {int(s): meaning for s, meaning in by_status.items()}
    meaning = known.get(status) if status is not None else None
    kind, reason = meaning or by_code.get(
        exit_code, (Kind.FAILED, f"The step exited with code {exit_code}.")
    )
    new = detail if _words(detail) - _words(reason) else ""
    return End(kind, exit_code, f"{reason} {new}".strip())


def by_driver(end: End, reason: str) -> End:
    """The end of a sandbox after its driver has ended it: what Modal says of it is no news.

    Args:
        end: By what Modal says. What the step itself brought about meanwhile stays as it is.
        reason: Why the driver has ended it, a sentence.
    """
    return replace(end, reason=reason) if end.kind in _TAKEN_AWAY else end


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


_TAKEN_AWAY = frozenset({Kind.TERMINATED, Kind.PREEMPTED, Kind.NOT_STARTED, Kind.LOST})

_MEMORY = "The sandbox ran out of memory."
