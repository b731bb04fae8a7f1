"""A step whose failure hook takes its time, and a branch beside it."""

from pathlib import Path

from zenml import pipeline, step


def wait_at(gate: str) -> None:
    """Wait until somebody opens the gate."""
    print(f"at {Path(gate).name}", flush=True)
    with Path(gate).open() as file:
        file.read()


def hook(error: BaseException) -> None:
    """Wait at the gate that the error names."""
    wait_at(str(error))


@step(on_failure=hook)
def fails(gate: str, of_hook: str) -> None:
    """Fail once the gate is open."""
    wait_at(gate)
    raise ValueError(of_hook)


@step
def waits(gate: str) -> str:
    """Wait until somebody opens the gate."""
    wait_at(gate)
    return "through"


@step
def after(word: str) -> None:
    """Come after."""
    print(f"after: {word}")


@pipeline(enable_cache=False)
def beside(of_failure: str, of_hook: str, of_step: str) -> None:
    """Fail beside a branch."""
    fails(of_failure, of_hook)
    after(waits(of_step))
