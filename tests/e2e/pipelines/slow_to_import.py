"""A module that waits while it is imported; what it waits for is named in the environment."""

import os
from pathlib import Path

from zenml import pipeline, step

with Path(os.environ["IMPORT_GATE"]).open() as gate:
    gate.read()


@step
def nothing() -> None:
    """Do nothing."""


@pipeline(enable_cache=False)
def slow() -> None:
    """Do nothing."""
    nothing()
