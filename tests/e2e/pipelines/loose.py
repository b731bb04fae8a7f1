"""Steps that have nothing to do with one another, and end in different ways."""

import os
from pathlib import Path

from zenml import get_step_context, pipeline, step
from zenml.config.retry_config import StepRetryConfig


def note(diary: str, text: str) -> None:
    """Add a line to the diary."""
    with Path(diary).open("a") as file:
        file.write(f"{text}\n")


def on_init(diary: str) -> str:
    """Hook of the pipeline."""
    note(diary, "init")
    return "ready"


def on_success() -> None:
    """Hook of a step."""
    context = get_step_context()
    note(str(context.step_run.config.parameters["diary"]), "hook: good succeeded")


@step(enable_cache=True, on_success=on_success)
def good(diary: str) -> int:
    """Succeed."""
    note(diary, "good runs")
    print("good says this")
    return 4


@step(retry=StepRetryConfig(max_retries=1, delay=0, backoff=1))
def bad(diary: str) -> None:
    """Fail."""
    note(diary, "bad runs")
    raise ValueError("bad luck")


@step
def patient(gate: str, diary: str) -> int:
    """Wait for somebody to open the gate; clean up if it doesn't come to that."""
    try:
        # Inside: the termination comes right after it.
        print(f"waiting in {os.getpid()}", flush=True)
        with Path(gate).open() as file:
            file.read()
    finally:
        note(diary, "patient cleans up")
    return 5


@pipeline(enable_cache=False)
def loose(gate: str, diary: str) -> None:
    """All of them."""
    good(diary)
    bad(diary)
    patient(gate, diary)
