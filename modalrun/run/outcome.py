"""How a run ended, from what Modal and ZenML say. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modalrun.errors import RunFailedError, RunStoppedError, RunTimeoutError
from modalrun.run.progress import StepProgress
from modalrun.run.sandbox_exit import ExitKind, SandboxExit


@dataclass(frozen=True)
class Outcome:
    """The end of a run as a user sees it.

    Attributes:
        exit_code: design.md, section 5.
        headline: One sentence.
        details: Labels and values: run id, links, the command that shows more.
        steps: All steps of the pipeline, parents before children.
        run_id: ZenML's run id.
        accepted: Whether this is not an end: the run goes on and nobody waits for it.
    """

    exit_code: int
    headline: str
    details: tuple[tuple[str, str], ...]
    steps: tuple[StepProgress, ...]
    run_id: str = ""
    accepted: bool = False


def all_cached(run_id: str, url: str | None, steps: Sequence[str]) -> Outcome:
    """The end of a run whose steps were all in ZenML's cache."""
    details = [("run", run_id), *([("zenml", url)] if url else [])]
    return Outcome(
        0,
        "Run completed: all steps cached; no sandbox was needed.",
        tuple(details),
        tuple(StepProgress(name, "cached") for name in steps),
    )


PAUSED = "paused"
"""ZenML's word for a dynamic pipeline's run that waits for somebody, and needs no sandbox."""


def answers(run_id: str, mode: str) -> tuple[str, str]:
    """The commands by which somebody answers what a paused run asks, and goes on with it.

    ZenML's own goes on with the stack's orchestrator, whichever that is. modalrun can where it has
    kept how: in `per_step` mode.
    """
    resume = "modalrun" if mode == "per_step" else "zenml pipeline runs"
    return (
        f"zenml pipeline runs wait-conditions resolve --interactive --run {run_id}",
        f"{resume} resume {run_id}",
    )


def verdict(
    end: SandboxExit, status: str, failed_steps: list[str], timeout: int
) -> tuple[int, str]:
    """The exit code and the sentence for the end of a run.

    ZenML's record wins where it says that the run completed: its steps are done and their
    artifacts stored, whatever happened to the sandbox afterwards.

    Args:
        end: How the run sandbox ended.
        status: ZenML's status of the run.
        failed_steps: Steps that ZenML records as failed.
        timeout: The sandbox's timeout in seconds.
    """
    if status == "completed":
        code = end.exit_code
        completed = end.kind is ExitKind.COMPLETED
        suffix = "" if completed else f" (its sandbox exited with {code} afterwards)"
        return 0, f"Run completed{suffix}."
    if status == PAUSED and end.kind is ExitKind.COMPLETED:
        return 0, "Run paused: it waits for somebody's answer."
    if end.kind is ExitKind.TIMED_OUT:
        return RunTimeoutError.exit_code, f"Run timed out after {timeout} s."
    if status == "stopped":
        return RunStoppedError.exit_code, "Run stopped."
    if end.kind.error is RunStoppedError:
        return (
            RunStoppedError.exit_code,
            "Run stopped: its sandbox was terminated or its process killed from outside.",
        )
    steps = f": {', '.join(failed_steps)}" if failed_steps else ""
    return RunFailedError.exit_code, f"Run failed{steps}."
