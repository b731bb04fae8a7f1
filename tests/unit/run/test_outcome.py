"""How a run ended: every pair of the sandbox's end and ZenML's status."""

import pytest

from modalrun.run.outcome import EndKind, verdict

FAILED = "Run failed: train."
KILLED = "Run stopped: its sandbox was terminated or its process killed from outside."
TIMED_OUT = "Run timed out after 60 s."

UNDECIDED = ["failed", "running", "provisioning", "initializing", "stopping"]


@pytest.mark.parametrize("end", ["completed", "failed", "timed_out", "stopped"])
def test_completed_in_zenml_is_completed(end: EndKind) -> None:
    code, headline = verdict(end, 137, "completed", [], 60)
    assert code == 0
    said = " (its sandbox exited with 137 afterwards)" if end != "completed" else ""
    assert headline == f"Run completed{said}."


@pytest.mark.parametrize(
    ("end", "status", "code", "headline"),
    [
        *(("timed_out", status, 6, TIMED_OUT) for status in [*UNDECIDED, "stopped"]),
        *(("stopped", status, 7, KILLED) for status in UNDECIDED),
        *(("failed", status, 1, FAILED) for status in UNDECIDED),
        *(("completed", status, 1, FAILED) for status in UNDECIDED),
        *((end, "stopped", 7, "Run stopped.") for end in ("completed", "failed", "stopped")),
    ],
)
def test_not_completed_in_zenml(end: EndKind, status: str, code: int, headline: str) -> None:
    assert verdict(end, 1, status, ["train"], 60) == (code, headline)


@pytest.mark.parametrize(
    ("steps", "headline"),
    [([], "Run failed."), (["a"], "Run failed: a."), (["a", "b"], "Run failed: a, b.")],
)
def test_failed_steps_are_named(steps: list[str], headline: str) -> None:
    assert verdict("failed", 1, "failed", steps, 60) == (1, headline)
