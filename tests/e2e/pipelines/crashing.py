"""A step that takes its process down."""

import ctypes

from zenml import pipeline, step


@step
def crash() -> None:
    """Read from the address 0."""
    print("about to crash")
    ctypes.string_at(0)


@step
def never() -> None:
    """Never run."""


@pipeline(enable_cache=False)
def crashing() -> None:
    """Crash."""
    crash()
    never(after="crash")
