"""`DockerSettings` -> the recipe of a Modal image. Pure: a recipe is a value, nothing is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalrun.errors import UsageError

CODE_FOLDER = "/app/code"
"""Where the source tree stands inside a sandbox."""

_UNDERSTOOD = frozenset({"parent_image", "apt_packages", "requirements", "environment"})


@dataclass(frozen=True)
class ImageRecipe:
    """What a sandbox's image is made of, in the order of its layers: rarely changed first.

    Attributes:
        python_version: "3.11"; the Python of the slim Debian image that is the default parent.
        parent_image: A registry image to start from instead.
        apt_packages: Debian packages.
        python_packages: Requirement lines for pip.
        environment: Environment variables of the image, sorted by name.
    """

    python_version: str
    parent_image: str | None = None
    apt_packages: tuple[str, ...] = ()
    python_packages: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


def image_recipe(
    docker: Mapping[str, Any],
    *,
    python_version: str,
    engine_packages: tuple[str, ...],
    source_root: Path,
    local: bool,
) -> tuple[ImageRecipe, list[str]]:
    """Translate the Docker settings that a user wrote.

    Args:
        docker: The fields of `DockerSettings` that were set, as plain values.
        python_version: Major and minor version, "3.11".
        engine_packages: What modalrun itself needs in the image ("zenml==0.98.0", ...).
        source_root: Where a requirements file is looked for.
        local: Whether the run goes to the local Modal server, which builds no image.

    Returns:
        The recipe, and what is worth saying about it.

    Raises:
        UsageError: A setting can't be translated (on Modal), or a requirements file is missing.
    """
    notes: list[str] = []
    unknown = sorted(key for key, value in docker.items() if key not in _UNDERSTOOD and value)
    if unknown and not local:
        raise UsageError(
            f"These Docker settings can't be turned into a Modal image yet: {', '.join(unknown)}.",
            hint=f"Understood are {', '.join(sorted(_UNDERSTOOD))}; remove the others.",
        )
    if docker and local:
        notes.append(
            "Docker settings are recorded, not built: the local Modal server runs this Python"
        )
    recipe = ImageRecipe(
        python_version=python_version,
        parent_image=docker.get("parent_image"),
        apt_packages=tuple(docker.get("apt_packages") or ()),
        python_packages=(
            *engine_packages,
            *_requirements(docker.get("requirements"), source_root),
        ),
        environment=tuple(
            sorted((k, str(v)) for k, v in (docker.get("environment") or {}).items())
        ),
    )
    return recipe, notes


def _requirements(value: Any, source_root: Path) -> tuple[str, ...]:
    if not value:
        return ()
    if isinstance(value, list):
        return tuple(str(line) for line in value)
    path = source_root / str(value)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(
            f"The requirements file {path} can't be read: {error.strerror}.",
            hint="'settings: docker: requirements:' is a list, or a file below the source root.",
        ) from error
    stripped = (line.split(" #")[0].strip() for line in lines)
    return tuple(line for line in stripped if line and not line.startswith("#"))
