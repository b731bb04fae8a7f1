"""Compare Docker settings without keeping them: their environment may hold secrets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from zenml.config import DockerSettings


def docker_digest(docker: Mapping[str, Any]) -> str:
    """Return a hash of Docker settings, which is the same with and without ZenML's defaults.

    ZenML fills the defaults in for child pipelines.
    """
    defaults = DockerSettings().model_dump(mode="json")
    own = {name: value for name, value in docker.items() if value != defaults.get(name)}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
