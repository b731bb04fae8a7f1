"""How a run ended: every pair of the sandbox's end and ZenML's status."""

import pytest

from modalrun.run.failure import Failure
from modalrun.run.outcome import Outcome, exit_code_and_headline
from modalrun.run.progress import StepProgress
from modalrun.run.sandbox_exit import ExitKind, SandboxExit

FAILED = "Run failed: train."
KILLED = "Run {}: its sandbox was terminated from outside or its process killed."
UNRECORDED = "Run lost: its sandbox ended without recording it."
TIMED_OUT = "Run timed out after 60 s."

COMPLETED, FAILURE = ExitKind.COMPLETED, ExitKind.FAILED
TIMEOUT, TERMINATED = ExitKind.TIMED_OUT, ExitKind.TERMINATED

WHOLE = {
    ExitKind.PREEMPTED: "Run {}: its sandbox was ended by Modal, as when it preempts one.",
    ExitKind.OUT_OF_MEMORY: "Run {}: its sandbox ran out of memory.",
    ExitKind.EVICTED: "Run {}: its sandbox was evicted by Modal for the memory that it used.",
}


def code(end: ExitKind) -> int:
    return 7 if end is ExitKind.PREEMPTED else 1


LOST = ["running", "provisioning", "initializing", "stopping"]
UNDECIDED = ["failed", *LOST]


@pytest.mark.parametrize("end", [COMPLETED, FAILURE, TIMEOUT, TERMINATED])
def test_completed_in_zenml_is_completed(end: ExitKind) -> None:
    exited = 0 if end is COMPLETED else 137
    code, headline = exit_code_and_headline(SandboxExit(end, exited, ""), "completed", [], 60)
    assert code == 0
    said = " (its sandbox exited with 137 afterwards)" if end is not COMPLETED else ""
    assert headline == f"Run completed{said}."


@pytest.mark.parametrize(
    ("end", "status", "code", "headline"),
    [
        *((TIMEOUT, status, 6, TIMED_OUT) for status in UNDECIDED),
        # The state that `list` and `status` show is the headline's word.
        (TERMINATED, "failed", 7, KILLED.format("failed")),
        (TERMINATED, "paused", 7, KILLED.format("paused")),
        *((TERMINATED, status, 7, KILLED.format("lost")) for status in LOST),
        *((end, "failed", 1, FAILED) for end in (FAILURE, COMPLETED)),
        *((end, status, 1, UNRECORDED) for end in (FAILURE, COMPLETED) for status in LOST),
        *((end, "failed", code(end), text.format("failed")) for end, text in WHOLE.items()),
        *((end, "running", code(end), text.format("lost")) for end, text in WHOLE.items()),
        *((end, "stopped", 7, "Run stopped.") for end in (COMPLETED, FAILURE, TERMINATED, TIMEOUT)),
    ],
)
def test_not_completed_in_zenml(end: ExitKind, status: str, code: int, headline: str) -> None:
    assert exit_code_and_headline(SandboxExit(end, 1, ""), status, ["train"], 60) == (
        code,
        headline,
    )


@pytest.mark.parametrize(
    ("steps", "headline"),
    [([], "Run failed."), (["a"], "Run failed: a."), (["a", "b"], "Run failed: a, b.")],
)
def test_failed_steps_are_named(steps: list[str], headline: str) -> None:
    assert exit_code_and_headline(SandboxExit(FAILURE, 1, ""), "failed", steps, 60) == (1, headline)


@pytest.mark.parametrize(
    ("state", "failure", "status", "failed"),
    [
        ("failed", None, "failed", True),
        # A retry was left, so ZenML has no other end for it.
        ("stopped", Failure("It took longer.", lines=("  train(rate)",)), "failed", True),
        ("stopped", Failure("no", "ValueError"), "failed", True),
        ("stopped", Failure("no", "ValueError"), "stopped", False),
        ("stopped", Failure("It was ended early: step `a` failed."), "failed", False),
        ("stopped", None, "failed", False),
    ],
)
def test_a_step_whose_retries_did_not_come_has_failed(
    state: str, failure: Failure | None, status: str, *, failed: bool
) -> None:
    step = StepProgress("train", state, failure=failure)
    assert bool(Outcome(1, "Run failed.", (), (step,), status=status).failed) == failed
