"""List the packages that a sandbox's image needs, at the versions that are installed here."""

from __future__ import annotations

import json
from importlib import metadata
from urllib.parse import urlsplit

from modalrun.errors import UsageError

ENGINE = ("zenml", "modal", "pydantic", "uv")
"""The packages that modalrun needs inside a sandbox. `pydantic`: ZenML stores its models with it.
`uv`: ZenML lists the installed packages of every run, in 0.1 s with uv and in 0.9 s with pip."""


def engine_packages(*, built: bool = True, server: bool = True) -> tuple[str, ...]:
    """Return requirement lines for `ENGINE`, at exactly the installed versions.

    modalrun itself is not among them: its source is mounted, so that unreleased versions work.

    Args:
        built: Whether an image is built from them. The local Modal server only records them.
        server: Whether ZenML's store is a server. Another one needs more packages.

    Raises:
        UsageError: A package is installed from a folder of this machine, which an image can't use.
    """
    extras = {} if server else {"zenml": "[local]"}
    return tuple(_requirement(name, extras.get(name, ""), built) for name in ENGINE)


def _requirement(name: str, extra: str, built: bool) -> str:
    distribution = metadata.distribution(name)
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    commit = origin.get("vcs_info", {}).get("commit_id")
    if commit:
        return f"{name}{extra} @ {origin['vcs_info']['vcs']}+{origin['url']}@{commit}"
    if "archive_info" in origin and urlsplit(origin["url"]).scheme in {"http", "https"}:
        return f"{name}{extra} @ {origin['url']}"
    if origin and built:
        raise UsageError(
            f"{name} {distribution.version} is installed from {origin['url']}, which only this"
            " machine has; the image of a sandbox must install the same version.",
            hint=f"Install {name} from PyPI or from a Git URL.",
        )
    return f"{name}{extra}=={distribution.version}"
