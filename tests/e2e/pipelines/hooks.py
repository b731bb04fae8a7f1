"""Pipelines whose hooks end their process."""

import os
import sys

from zenml import pipeline, step


def exits() -> None:
    """Raise SystemExit."""
    sys.exit(3)


def leaves() -> None:
    """End the process at once."""
    os._exit(5)


@step
def fine() -> None:
    """Be well."""


@pipeline(enable_cache=False)
def static() -> None:
    """One step."""
    fine()


@pipeline(enable_cache=False, dynamic=True)
def dynamic() -> None:
    """One step, in a dynamic run."""
    fine()
