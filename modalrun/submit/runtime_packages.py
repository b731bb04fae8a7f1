"""What a sandbox's image needs of this installation, at the versions in use here."""

from __future__ import annotations

import json
from importlib import metadata
from urllib.parse import urlsplit

from modalrun.errors import UsageError

ENGINE = ("zenml", "modal", "pydantic", "uv")
"""What modalrun runs with inside a sandbox. `pydantic` since ZenML stores its models with it; `uv`
since ZenML lists the installed packages with every run: 0.1 s with uv, 0.9 s with pip."""


def engine_packages(*, built: bool = True) -> tuple[str, ...]:
    """Requirement lines for `ENGINE`, at exactly the versions that are installed here.

    modalrun itself is not among them: its source is mounted, so that an unreleased one works.

    Args:
        built: Whether an image is built from them. The local Modal server only records them.

    Raises:
        UsageError: One of them is installed from a folder of this machine, which no image can
            install.
    """
    return tuple(_requirement(name, built) for name in ENGINE)


def _requirement(name: str, built: bool) -> str:
    distribution = metadata.distribution(name)
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    commit = origin.get("vcs_info", {}).get("commit_id")
    if commit:
        return f"{name} @ {origin['vcs_info']['vcs']}+{origin['url']}@{commit}"
    if "archive_info" in origin and urlsplit(origin["url"]).scheme in {"http", "https"}:
        return f"{name} @ {origin['url']}"
    if origin and built:
        raise UsageError(
            f"{name} {distribution.version} is installed from {origin['url']}, a place that only"
            " this machine has; the image of a sandbox has to install the same version.",
            hint=f"Install {name} from PyPI or from a Git URL.",
        )
    return f"{name}=={distribution.version}"
