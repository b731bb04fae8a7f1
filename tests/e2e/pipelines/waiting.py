"""A step that says which process it is in and then waits."""

import os
from pathlib import Path

from zenml import pipeline, step


@step
def wait(gate: str) -> str:
    """Wait until somebody opens the gate."""
    print(f"waiting in {os.getpid()} below {os.getppid()}", flush=True)
    with Path(gate).open() as file:
        file.read()
    print("the gate is open")
    return "through"


@step
def afterwards(word: str) -> None:
    """Come after."""
    print(f"afterwards: {word}")


@pipeline(enable_cache=False)
def waiting(gate: str) -> None:
    """Wait, and then do something."""
    afterwards(wait(gate))


@pipeline(dynamic=True, enable_cache=False)
def waiting_isolated(gate: str) -> None:
    """Wait in a sandbox of a dynamic pipeline."""
    wait.with_options(runtime="isolated")(gate)


@pipeline(dynamic=True, enable_cache=False)
def waiting_inline(gate: str) -> None:
    """Wait in the process of a dynamic pipeline."""
    wait(gate)
