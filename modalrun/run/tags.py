"""Names and tags of sandboxes, within the bounds of Modal."""

from __future__ import annotations

import hashlib
import re

MAX_NAME = 64
MAX_TAG = 63
"""Modal's bounds on names and tag values (`modal/_utils/name_utils.py`, 1.6.4)."""

TAG_RUN = "modalrun-run"
"""ZenML's run id."""

TAG_ROLE = "modalrun-role"
"""`run` or `step`."""

TAG_STEP = "modalrun-step"
"""The step's name, fitted."""

TAG_PIPELINE = "modalrun-pipeline"
"""The pipeline's name, fitted."""

TAG_AFTER = "modalrun-after"
"""On a run sandbox that is not the first one of its run: the one before."""


def fit(text: str, limit: int) -> str:
    """Make a name that Modal takes: other characters become dashes, a long one is cut and hashed.

    Two different texts never give the same name by being cut or cleaned: a changed one carries a
    hash of what it was.
    """
    clean = re.sub(r"[^A-Za-z0-9\-_.]", "-", text)
    if clean == text and len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{clean[: limit - 9]}-{digest}"


TAG_ATTEMPT = "modalrun-attempt"
"""Which sandbox of its step it is: so that a driver that takes over counts on."""

TAG_RECORD = "modalrun-record"
"""The id of the step run record that a dynamic pipeline's step has in ZenML."""

TAG_EARLY = "modalrun-early"
"""On a sandbox that was created before its step's turn."""
