"""A pipeline whose step's module raises an exception without a text in a sandbox."""

import os

from ending_steps import Unprintable
from zenml import pipeline, step

if "MODALRUN_RUN_ID" in os.environ:
    raise Unprintable


@step
def never() -> None:
    """Do not run."""


@pipeline(enable_cache=False)
def static() -> None:
    """Fail before a step's function."""
    never()
