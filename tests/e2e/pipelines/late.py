"""A module that can be imported where it is compiled, and fails in the sandbox."""

import os

from zenml import pipeline, step

if "MODAL_SANDBOX_ID" in os.environ:
    import no_such_package  # noqa: F401


@step
def work() -> None:
    """Do nothing."""


@pipeline
def late() -> None:
    """Have one step."""
    work()
