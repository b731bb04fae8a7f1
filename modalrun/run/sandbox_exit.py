"""Tabulate how a sandbox can end: what each exit code and each of Modal's statuses means. Pure.

This is the only table of exit meanings. `ExitKind` gives for each meaning the error that a run
ends with (and so the exit code of the CLI) and whether the infrastructure is to blame; then a step
is started again without using up one of the user's retries.

`modalrun.run.contract` has the exit codes by name. In a step sandbox they imply a state of the
step's record in ZenML:

    0    completed, cached or skipped
    1    failed (retrying, while the user's retries last)
    71   as 1: out of memory
    124  as 1: it took longer than its timeout. If Modal's own timeout came first: as 137
    143  stopped, if the run was asked to stop; else unchanged, and the driver decides
    130  as 143: the sandbox got SIGINT, which comes before a preemption
    70   unchanged: ZenML could not be reached
    72   unchanged: the step has not begun, as on a full disk
    137  unchanged: the sandbox was killed from outside
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum, IntEnum

from modalrun.errors import ModalrunError, RunFailedError, RunStoppedError, RunTimeoutError
from modalrun.run import contract


class ModalStatus(IntEnum):
    """Modal's status of an ended sandbox (`GenericResult.GenericStatus`, SDK 1.6.4)."""

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


class ExitKind(Enum):
    """Classify the end of a sandbox.

    Attributes:
        label: Its name in messages.
        error: The error of a run whose run sandbox ended so; None for a completed one.
        is_infrastructure: Whether neither the user's code nor the user's settings are to blame.
    """

    COMPLETED = ("completed", None, False)
    FAILED = ("failed", RunFailedError, False)
    TIMED_OUT = ("timed out", RunTimeoutError, False)
    OUT_OF_MEMORY = ("out of memory", RunFailedError, False)
    EVICTED = ("evicted", RunFailedError, True)
    # Modal refuses to create it, now and later.
    REFUSED = ("refused", RunFailedError, False)
    TERMINATED = ("terminated", RunStoppedError, True)
    PREEMPTED = ("preempted", RunStoppedError, True)
    SERVER_KILLED = ("killed with the local Modal server", RunStoppedError, True)
    SERVER_STOPPED = ("stopped with the local Modal server", RunStoppedError, True)
    NOT_STARTED = ("could not start", RunFailedError, True)
    UNPREPARED = ("could not create its files", RunFailedError, True)
    UNRECORDED = ("before it recorded the run's end", RunFailedError, True)
    LOST = ("lost", RunFailedError, True)
    # Of a sandbox that is kept warm, and has run other steps before.
    NOT_BEGUN = ("before it began the step", RunFailedError, True)

    def __init__(
        self, label: str, error: type[ModalrunError] | None, is_infrastructure: bool
    ) -> None:
        self.label = label
        self.error = error
        self.is_infrastructure = is_infrastructure


_OUT_OF_MEMORY = (ExitKind.OUT_OF_MEMORY, "The sandbox ran out of memory.")
# Modal evicts a sandbox that uses more memory than it asked for when the machine runs short
# (modal.com/docs/guide/sandbox-resources, a copy of 2026-09-01).
_EVICTED = (ExitKind.EVICTED, "Modal evicted the sandbox for the memory that it used.")

_BY_EXIT_CODE = {
    contract.EXIT_COMPLETED: (ExitKind.COMPLETED, "The step completed."),
    # Why, ZenML's record says; the code is modalrun's own and not that of the user's process.
    contract.EXIT_FAILED: (ExitKind.FAILED, "The step failed."),
    contract.EXIT_UNRECORDED: (ExitKind.UNRECORDED, "The step could not record its end in ZenML."),
    contract.EXIT_OUT_OF_MEMORY: _OUT_OF_MEMORY,
    contract.EXIT_UNPREPARED: (
        ExitKind.UNPREPARED,
        "The files of the step could not be created in its sandbox, whose output says why.",
    ),
    contract.EXIT_TIMED_OUT: (ExitKind.TIMED_OUT, "The step took longer than its timeout."),
    contract.EXIT_INTERRUPTED: (ExitKind.PREEMPTED, contract.PREEMPTED_REASON),
    contract.EXIT_KILLED: (ExitKind.TERMINATED, "The sandbox was killed from outside."),
    contract.EXIT_TERMINATED: (ExitKind.TERMINATED, contract.TERMINATED_REASON),
}
"""Every other exit code means `FAILED`."""

_BY_STATUS = {
    ModalStatus.TERMINATED: (ExitKind.TERMINATED, "The sandbox was terminated from outside."),
    ModalStatus.TIMEOUT: (ExitKind.TIMED_OUT, "The sandbox reached its timeout."),
    ModalStatus.INIT_FAILURE: (ExitKind.NOT_STARTED, "The sandbox could not start."),
    ModalStatus.INTERNAL_FAILURE: (
        ExitKind.PREEMPTED,
        "Modal lost the sandbox (internal failure).",
    ),
    ModalStatus.IDLE_TIMEOUT: (ExitKind.TERMINATED, "Modal ended the sandbox because it was idle."),
    ModalStatus.MEMORY_MANAGER_EVICTION: _EVICTED,
    ModalStatus.MEMORY_THRASHING_EVICTION: _EVICTED,
    ModalStatus.KERNEL_OOM_KILL: _OUT_OF_MEMORY,
}
"""With any other status the exit code decides; only with SUCCESS is 0 a completion."""


@dataclass(frozen=True)
class SandboxExit:
    """Describe the end of one sandbox.

    Attributes:
        kind: Its meaning.
        exit_code: Of the sandbox; None if there was no sandbox.
        reason: A sentence.
        killed: Whether it was killed as a whole, so that its processes could record nothing.
    """

    kind: ExitKind
    exit_code: int | None
    reason: str
    killed: bool = False

    @property
    def is_infrastructure(self) -> bool:
        """Whether neither the user's code nor the user's settings are to blame."""
        return self.kind.is_infrastructure

    @property
    def leaves_steps(self) -> bool:
        """Whether a driver whose sandbox ended so may have left steps running, and no record."""
        # A driver that gets SIGTERM ends the run itself.
        lost = self.is_infrastructure and self.exit_code != contract.EXIT_TERMINATED
        return self.killed or lost

    def with_memory_limit(self, limit: int | None) -> SandboxExit:
        """Blame an eviction on the user's own memory limit in MiB, if there is one."""
        if self.kind is not ExitKind.EVICTED or limit is None:
            return self
        reason = f"The sandbox needed more memory than its limit of {limit} MiB."
        return replace(self, kind=ExitKind.OUT_OF_MEMORY, reason=reason)

    def with_peak(self, mib: int) -> SandboxExit:
        """Add the most memory that was used to an end for want of it."""
        if self.kind not in {ExitKind.OUT_OF_MEMORY, ExitKind.EVICTED}:
            return self
        return replace(self, reason=f"{self.reason.rstrip('.')}: peak {mib:,} MiB.")


_BY_DETAIL = {
    "The local Modal server was killed": ExitKind.SERVER_KILLED,
    "The local Modal server was stopped": ExitKind.SERVER_STOPPED,
}
"""How the local Modal server begins what it says of the sandboxes that ended with it."""

ENDED_WITH_SERVER = frozenset(_BY_DETAIL.values())
"""Ends that all other sandboxes have shared."""

LOST = SandboxExit(ExitKind.LOST, None, "Modal does not know the sandbox any more.")

NOT_BEGUN = SandboxExit(
    ExitKind.NOT_BEGUN, None, "The sandbox ended before it reported that it had begun the step."
)

# The success of a worker that is kept warm says nothing of its step.
UNREPORTED = SandboxExit(
    ExitKind.UNRECORDED,
    contract.EXIT_COMPLETED,
    "The sandbox ended before it reported the end of the step.",
)

SILENT = SandboxExit(
    ExitKind.LOST, None, "The sandbox did not answer for as long as the step may take."
)


def read_exit(exit_code: int, status: int | None = None, detail: str = "") -> SandboxExit:
    """Look up what an exit code and Modal's status mean.

    Modal's status comes first, since an exit code of 137 alone says little.

    Args:
        exit_code: Of the sandbox, with Modal's 124 for a timeout and 137 for a termination.
        status: Modal's status, if the SDK gives it.
        detail: Modal's own text; left out if it repeats the table's.
    """
    by_status = next((known for known in _BY_STATUS if known == status), None)
    if by_status is not None:
        kind, reason = _BY_STATUS[by_status]
        killed = by_status not in {ModalStatus.TIMEOUT, ModalStatus.INIT_FAILURE}
        for begin, ended in _BY_DETAIL.items():
            if detail.startswith(begin):
                kind, reason = ended, ""
    else:
        failed = (ExitKind.FAILED, f"The step exited with code {exit_code}.")
        kind, reason = _BY_EXIT_CODE.get(exit_code, failed)
        killed = exit_code == contract.EXIT_KILLED
        if kind is ExitKind.COMPLETED and status not in {None, ModalStatus.SUCCESS}:
            # ZenML's record says whether the work was done.
            kind, reason = ExitKind.UNRECORDED, "Modal reports a failure, with exit code 0."
    new = detail if _words(detail) - _words(reason) else ""
    return SandboxExit(kind, exit_code, f"{reason} {new}".strip(), killed)


def is_of_entrypoint(end: SandboxExit) -> bool:
    """Return whether an ENTRYPOINT that is kept may have ended a sandbox: without its command."""
    return end.kind is ExitKind.FAILED or end.exit_code == contract.EXIT_COMPLETED


def of_entrypoint(end: SandboxExit) -> SandboxExit:
    """Return the end of a sandbox whose ENTRYPOINT has ended it; modalrun has not begun in it."""
    reason = (
        f"The sandbox ended (exit code {end.exit_code}) before modalrun began in it. Its image"
        " keeps its ENTRYPOINT ('keep_entrypoint')."
    )
    return SandboxExit(ExitKind.FAILED, end.exit_code, reason)


def ended_by_driver(end: SandboxExit, reason: str) -> SandboxExit:
    """Replace the reason of an exit that the driver has caused; leave others as they are."""
    own = end.kind in {ExitKind.UNRECORDED, ExitKind.UNPREPARED}
    caused = end.is_infrastructure and not own
    return replace(end, reason=reason) if caused else end


def error_class(exit_code: int) -> type[ModalrunError]:
    """Return the error of a run that ended with this exit code of the CLI."""
    errors = {kind.error.exit_code: kind.error for kind in ExitKind if kind.error}
    return errors.get(exit_code, RunStoppedError)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
