"""Define image recipes: frozen values that `modal_api.images` builds images from. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modalrun.errors import without_credentials
from modalrun.run.contract import PACKAGE_FILE

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Slim:
    """Stand for Modal's slim Debian with a version of Python, "3.11"."""

    python_version: str

    def __str__(self) -> str:
        return f"debian slim, Python {self.python_version}"


@dataclass(frozen=True)
class RegistryCredentials:
    """Hold the login of a private registry. Not part of a recipe; travels as a Modal secret."""

    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True)
class FromRegistry:
    """Stand for an image in a registry, for linux/amd64 and with Python on its PATH.

    Attributes:
        private: Whether the credentials of the stack's container registry are needed to pull it.
    """

    image: str = field(repr=False)
    private: bool = False

    def __str__(self) -> str:
        return without_credentials(self.image)


@dataclass(frozen=True)
class FromDockerfile:
    """Stand for an image that Modal builds from a Dockerfile of the user's.

    Attributes:
        context: The folder that `COPY` copies from; None if nothing is copied.
        ignore: The .dockerignore file for the context; None for the usual one.
        build_args: Values for its `ARG` lines, by name. May hold secrets: never shown.
    """

    path: Path
    context: Path | None = None
    ignore: Path | None = None
    build_args: Pairs = field(default=(), repr=False)

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Named:
    """Stand for a published Modal image, by name, with or without a tag, or by id ("im-...")."""

    name: str

    @property
    def is_id(self) -> bool:
        """Whether it is an id; Modal lets no name begin with "im-" (`modal/_image.py:132`)."""
        return self.name.startswith("im-")

    def __str__(self) -> str:
        return f"Modal image {self.name}"


@dataclass(frozen=True)
class BuiltByZenML:
    """Stand for the image that ZenML builds and pushes when the run is submitted."""

    def __str__(self) -> str:
        return "built and pushed by ZenML"


Base = Slim | FromRegistry | FromDockerfile | Named | BuiltByZenML


@dataclass(frozen=True)
class Packages:
    """Hold requirements that are installed in one layer.

    Attributes:
        origin: The setting that they come from, for messages.
        lines: Lines of a requirements file. May hold the credentials of an index: never shown.
        pins: The engine's requirements, installed along so that they keep their versions.
    """

    origin: str
    lines: tuple[str, ...] = field(repr=False)
    pins: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageRecipe:
    """Hold everything that a sandbox's image is built from, the rarely changed first.

    The source tree is mounted over the finished image, so a change of code rebuilds nothing. Only
    `project_install` needs a copy of the tree in a layer.

    Attributes:
        environment: Environment variables for the build and the sandbox, sorted by name.
        packages: Python packages, in the order in which they are installed.
        installer_args: Arguments for the installer, such as "--index-url=https://...".
        project_install: A shell command that installs the user's project, run in a copy of the
            source tree at `CODE_FOLDER`.
        runtime_environment: Environment variables that are set last, sorted by name.
        force_build: Whether Modal builds anew what it has built before.
        keep_entrypoint: Whether an ENTRYPOINT of the base wraps the sandbox's command.
    """

    base: Base
    environment: Pairs = field(default=(), repr=False)
    apt_packages: tuple[str, ...] = ()
    packages: tuple[Packages, ...] = ()
    installer: Literal["uv", "pip"] = "uv"
    installer_args: tuple[str, ...] = field(default=(), repr=False)
    project_install: str | None = field(default=None, repr=False)
    runtime_environment: Pairs = field(default=(), repr=False)
    force_build: bool = False
    keep_entrypoint: bool = False

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of its sandboxes."""
        return dict((*self.environment, *self.runtime_environment))

    @property
    def python_path(self) -> str:
        """The PYTHONPATH of sandboxes that do not share our Python: modalrun first."""
        own = self.variables.get("PYTHONPATH")
        return f"{PACKAGE_FILE}:{own}" if own else PACKAGE_FILE
