"""Say how much of a sandbox's timeout the processes in it have."""

from __future__ import annotations

import os
import time

from modalrun.run import contract

TERMINATE_GRACE_SECONDS = 10.0
"""How long a runner may take to end after a signal."""


def margin(timeout: float) -> float:
    """Return how many seconds before the sandbox's own timeout the runner is ended.

    A tenth of the timeout, at most 30 s, because recording the end may take another start of ZenML;
    of a short one up to a fifth, because the step itself needs a second for it.
    """
    return min(30.0, max(0.5, timeout * 0.1, min(4.0, timeout * 0.2)))


def unwinding() -> float:
    """Return how many seconds the code of running steps has to unwind at the run's deadline."""
    return min(TERMINATE_GRACE_SECONDS / 2, margin(float(os.environ[contract.TIMEOUT])) * 0.35)


def age(timeout: float) -> float:
    """Return how many seconds ago the sandbox was created: Modal's timeout counts from then.

    Below 0, or above half of the timeout, one of the two clocks is taken to be wrong: then the age
    is 0, and Modal's timeout may come before this process has recorded the end.
    """
    now = time.time()
    age = now - float(os.environ.get(contract.CREATED, now))
    return age if 0 <= age <= timeout / 2 else 0.0
