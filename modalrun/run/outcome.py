"""Describe the outcome of a run: its exit code, headline and steps. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modalrun.errors import RunFailedError, RunStoppedError, RunTimeoutError
from modalrun.run.contract import (
    EXIT_INTERRUPTED,
    EXIT_KILLED,
    EXIT_TERMINATED,
    EXIT_TIMED_OUT,
    PREEMPTED_REASON,
    TERMINATED_REASON,
)
from modalrun.run.failure import has_failed
from modalrun.run.progress import StepProgress
from modalrun.run.records import FINISHED, RunRecord
from modalrun.run.sandbox_exit import ExitKind, SandboxExit, read_exit
from modalrun.run.timeline import Timeline

LOST = "lost"
"""The state of a run that ZenML records as unfinished and whose sandbox has ended."""

ENDED_AS_A_WHOLE = {
    ExitKind.NOT_STARTED: "could not start",
    ExitKind.UNPREPARED: "could not create its files",
    ExitKind.OUT_OF_MEMORY: "ran out of memory",
    ExitKind.EVICTED: "was evicted by Modal for the memory that it used",
    ExitKind.PREEMPTED: "was ended by Modal, as when it preempts one",
    ExitKind.SERVER_KILLED: "was killed with the local Modal server",
    ExitKind.SERVER_STOPPED: "was ended when the local Modal server was stopped",
}
"""What to say of the run sandbox, as the verb of a sentence."""

_BY_REASON = {
    "The run took longer than its timeout": ExitKind.TIMED_OUT,
    TERMINATED_REASON: ExitKind.TERMINATED,
    PREEMPTED_REASON: ExitKind.PREEMPTED,
    **{f"The run sandbox ended ({kind.label},": kind for kind in ExitKind},
    **{f"The run sandbox {how};": kind for kind, how in ENDED_AS_A_WHOLE.items()},
    **{
        f"The run sandbox ended with exit code {code};": read_exit(code).kind
        for code in (EXIT_TIMED_OUT, EXIT_INTERRUPTED, EXIT_KILLED, EXIT_TERMINATED)
    },
}
"""How the reasons begin that the supervisor, `submit` and `reconcile` record of a run."""

_MOST_CHILDREN = 8

PAUSED = "paused"
"""ZenML's status of a dynamic pipeline's run that waits for an answer, without a sandbox."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run for a user.

    Attributes:
        exit_code: See docs/troubleshooting.md.
        headline: One sentence.
        details: Labels and values: run id, links, the command that shows more.
        steps: All steps of the pipeline, parents before children.
        source_root: The folder of this machine whose files it got; None if that is not known.
        timeline: When its phases began and ended; None if that is not told.
        asynchronous: Whether the command does not wait for the run's end, and prints its id.
        status: ZenML's status of it; empty where that is not known.
    """

    exit_code: int
    headline: str
    details: tuple[tuple[str, str], ...]
    steps: tuple[StepProgress, ...]
    run_id: str = ""
    source_root: Path | None = None
    timeline: Timeline | None = None
    asynchronous: bool = False
    status: str = ""

    @property
    def failed(self) -> list[StepProgress]:
        """The steps that have failed."""
        return [one for one in self.steps if has_failed(one.state, one.failure, self.status)]


def all_cached(
    run_id: str, url: str | None, steps: Sequence[str], *, asynchronous: bool
) -> Outcome:
    """Return the outcome of a run whose steps were all in ZenML's cache."""
    details = [("run", run_id), *([("zenml", url)] if url else [])]
    return Outcome(
        0,
        "Run completed: all steps cached; no sandbox was needed.",
        tuple(details),
        tuple(StepProgress(name, "cached") for name in steps),
        run_id=run_id,
        asynchronous=asynchronous,
    )


def answer_commands(run: RunRecord) -> tuple[str, ...]:
    """Return the commands that answer a paused run, or its children that wait, and resume it.

    ZenML knows what a child waits for by the child's id, and pauses those above it too.

    ZenML's own `resume` would use the orchestrator of the stack, which may run steps on this
    machine.
    """
    paused = [run, *(child for child in run.children.values() if child.status == PAUSED)]
    above = {one.parent for one in paused}
    resolve = "zenml pipeline runs wait-conditions resolve --interactive --run"
    answers = [f"{resolve} {one.id}" for one in paused if one.id not in above]
    return (*answers, f"modalrun resume {run.id}")


def child_details(run: RunRecord) -> list[tuple[str, str]]:
    """Return a label and a value for the run of each child pipeline; of many, for the last ones."""
    children = list(run.children.items())
    details = [
        ("child", f"{name}: {child.id} ({child.status})")
        for name, child in children[-_MOST_CHILDREN:]
    ]
    if (more := len(children) - len(details)) > 0:
        details.append(("child", f"and {more} more: modalrun status {run.id} --output json"))
    return details


def recorded_end(reason: str | None) -> SandboxExit | None:
    """Return how a run sandbox has ended by the reason of its run; None if that does not say so."""
    text = reason or ""
    kind = next((kind for begin, kind in _BY_REASON.items() if text.startswith(begin)), None)
    return None if kind is None else SandboxExit(kind, None, text)


def exit_code_and_headline(
    end: SandboxExit, status: str, failed_steps: list[str], timeout: int
) -> tuple[int, str]:
    """Return the exit code and the headline of a run that has ended.

    ZenML's record wins where it is "completed": the steps are done and their artifacts stored,
    whatever happened to the sandbox afterwards.

    Args:
        failed_steps: Steps that ZenML records as failed.
        timeout: The sandbox's timeout in seconds; 0 if it is not known.
    """
    if status == "completed":
        suffix = (
            "" if end.exit_code == 0 else f" (its sandbox exited with {end.exit_code} afterwards)"
        )
        return 0, f"Run completed{suffix}."
    if status == PAUSED and end.exit_code == 0:
        return 0, "Run paused: it goes on when it is answered, and then resumed."
    error = end.kind.error
    if status == "stopped":
        return RunStoppedError.exit_code, "Run stopped."
    if error is RunTimeoutError:
        after = f" after {timeout} s" if timeout else ""
        return error.exit_code, f"Run timed out{after}."
    # The word is the state that `list` and `status` show.
    state = status if status in FINISHED or status == PAUSED else LOST
    how = ENDED_AS_A_WHOLE.get(end.kind)
    if error is RunStoppedError:
        how = how or "was terminated from outside or its process killed"
    if error is not None and how is not None:
        return error.exit_code, f"Run {state}: its sandbox {how}."
    why = f": {', '.join(failed_steps)}" if failed_steps else ""
    if state == LOST:
        why = ": its sandbox ended without recording it"
    return RunFailedError.exit_code, f"Run {state}{why}."
