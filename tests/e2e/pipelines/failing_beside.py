"""A step that fails, and a branch beside it that goes on."""

from pathlib import Path

from zenml import pipeline, step


@step
def fails() -> None:
    """Fail at once."""
    raise ValueError("as asked")


@step
def waits(gate: str) -> str:
    """Wait until somebody opens the gate."""
    print("waiting", flush=True)
    with Path(gate).open() as file:
        file.read()
    return "through"


@step
def after(word: str) -> None:
    """Come after."""
    print(f"after: {word}")


@pipeline(enable_cache=False)
def beside(gate: str) -> None:
    """Fail first."""
    fails()
    after(waits(gate))
