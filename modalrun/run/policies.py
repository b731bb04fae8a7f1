"""What a user set for retries and caching of one step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepPolicy:
    """What a user wrote about one step that no sandbox spec has.

    Attributes:
        retries: How often it is tried again after a failure.
        delay: Seconds before the first retry.
        backoff: What the delay is multiplied with before each further one.
        caches: Whether ZenML's cache may have its outputs.
    """

    retries: int
    delay: float
    backoff: float
    caches: bool
