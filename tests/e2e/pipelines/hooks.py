"""Pipelines whose hooks end their process."""

import os
import sys

from zenml import pipeline, step
from zenml.config.retry_config import StepRetryConfig


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


@step
def fails() -> None:
    """Fail."""
    raise ValueError("bad luck")


@pipeline(enable_cache=False)
def failing() -> None:
    """Steps whose hooks end their process after their failure."""
    retry = StepRetryConfig(max_retries=1, delay=0, backoff=1)
    fails.with_options(on_failure=exits)(id="exits")
    fails.with_options(on_failure=leaves)(id="leaves")
    fails.with_options(on_end=leaves, retry=retry)(id="leaves_twice")


@pipeline(enable_cache=False, dynamic=True)
def dynamic_failing() -> None:
    """The same, and a function that handles the failures."""
    retry = StepRetryConfig(max_retries=1, delay=0, backoff=1)
    for way, options in {
        "exits": {"on_failure": exits},
        "leaves": {"on_failure": leaves},
        "leaves_twice": {"on_end": leaves, "retry": retry},
    }.items():
        try:
            fails.with_options(**options)(id=way)
        except Exception as error:  # noqa: PERF203
            print(f"the function got {error} of {way}")
