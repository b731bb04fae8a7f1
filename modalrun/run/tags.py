"""Name and tag sandboxes within Modal's limits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

MAX_NAME = 64
MAX_TAG = 63
"""Modal's limits for names and tag values (`modal/_utils/name_utils.py`, 1.6.4)."""

# Tags of every sandbox.
TAG_RUN = "modalrun-run"
"""ZenML's run id."""
TAG_ROLE = "modalrun-role"
"""`run` or `step`."""
TAG_PIPELINE = "modalrun-pipeline"
"""The pipeline's name, fitted."""

# Tags of a run sandbox.
TAG_AFTER = "modalrun-after"
"""The earlier run sandbox of a resumed run."""

# Tags of a step sandbox.
TAG_STEP = "modalrun-step"
"""The step's name, fitted."""
TAG_ATTEMPT = "modalrun-attempt"
"""The number of the step's sandbox, from 1; a driver that takes over continues the count."""
TAG_RECORD = "modalrun-record"
"""ZenML's step run id, for a step of a dynamic pipeline."""
TAG_ORDER = "modalrun-order"
"""The secret of its last order (`run/contract.ORDER`), if it is kept warm."""
TAG_SERVED = "modalrun-served"
"""How many steps it has been given, if it is kept warm."""


class StepTags:
    """What the tags of a step sandbox say.

    Attributes:
        tags: Its tags.
    """

    tags: Mapping[str, str]

    @property
    def step(self) -> str:
        """The step's name, fitted."""
        return self.tags.get(TAG_STEP, "")

    @property
    def attempt(self) -> int:
        """The number of this sandbox among those of its step, from 1."""
        return int(self.tags.get(TAG_ATTEMPT, "1"))

    @property
    def record(self) -> str:
        """ZenML's step run id; empty for a step of a static pipeline."""
        return self.tags.get(TAG_RECORD, "")


def step_sandbox_name(run_id: str, step: str, number: int, dynamic_run: str | None = None) -> str:
    """Return the name of a step's sandbox, by which it is found.

    Args:
        number: The number among the step's sandboxes, from 1.
        dynamic_run: For a step of a dynamic pipeline, ZenML's id of the run that it belongs to.
    """
    # The steps of a child pipeline may be named like its parent's.
    unique = f"{dynamic_run} {step}" if dynamic_run else step
    digest = hashlib.sha256(unique.encode()).hexdigest()[:8]
    return fit(f"modalrun-{run_id}-{digest}-{number}", MAX_NAME)


def fit(text: str, limit: int) -> str:
    """Make a name that Modal accepts: replace other characters by dashes, cut a long text.

    A changed text gets a hash of the original, so that different texts give different names.
    """
    clean = re.sub(r"[^A-Za-z0-9\-_.]", "-", text)
    if clean == text and len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{clean[: limit - 9]}-{digest}"
