"""Build images on Modal from recipes. Written against the Modal SDK 1.6.4, `modal/_image.py`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalrun.errors import InternalError, RunFailedError
from modalrun.modal_api import image_builder
from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import translated
from modalrun.modal_api.image_builder import PinnedBuilder
from modalrun.plan.image_recipe import (
    BuiltByZenML,
    FromDockerfile,
    FromRegistry,
    ImageRecipe,
    Named,
    Packages,
    RegistryCredentials,
    Slim,
)
from modalrun.plan.requirements import is_plain, read_text
from modalrun.run.contract import CODE_FOLDER
from modalrun.util import timeline
from modalrun.util.credentials import credential_reason
from modalrun.util.ignore_files import dockerignore_matcher

if TYPE_CHECKING:
    import modal

    from modalrun.plan.model import Plan

AT_ONCE = 16
"""Images that are built at the same time."""

COMPILE = (
    "python -c 'import compileall, sys;"
    " [compileall.compile_dir(p, quiet=2, workers=0) for p in sys.path if p]'"
)
"""Compiles all that Python can import, unless it is compiled already.

Docker's `python` images have no bytecode of the standard library (docker-library/python#615 on
GitHub), and those that ZenML builds have none of what uv installs
(`utils/pipeline_docker_image_builder.py`, 0.98.0). Each sandbox would compile it again.
"""

LOG_LINES = 40
"""Lines of a failed build's log that are shown."""


@dataclass
class Builder:
    """Builds images in one app and Modal environment, with the credentials of a registry."""

    connection: Connection
    app: modal.App
    environment: str | None
    registry: RegistryCredentials | None = field(default=None, repr=False)

    def build(self, recipe: ImageRecipe, source: Path) -> modal.Image:
        """Have Modal build the layers of a recipe that it has not built before, and wait for them.

        A recipe may install the user's project from the source tree.

        Raises:
            RunFailedError: A build failed; the message has the image's id and the end of its log.
            ModalrunError: As for `translated`.
        """
        import modal

        # The plan notes those of the user's Dockerfile; the others are modalrun's.
        warnings.filterwarnings("ignore", ".* does not do this of an image: RUN")
        # The SDK reads requirements files only while it builds.
        with tempfile.TemporaryDirectory(prefix="modalrun-image-") as folder, translated():
            image = self._layers(recipe, source, Path(folder))
            try:
                with timeline.phase("look up or build an image"):
                    image.build(self.app)
            except modal.exception.ImageBuildError as error:
                raise _failed(image, error, self.connection) from error
        return image

    def _layers(self, recipe: ImageRecipe, source: Path, folder: Path) -> modal.Image:
        image = self._base(recipe)
        if not recipe.keep_entrypoint and not isinstance(recipe.base, Slim):
            # It would wrap the supervisor (modal.com/docs/guide/existing-images, 2026-11-28).
            image = image.entrypoint([])
        if not isinstance(recipe.base, Named):
            image = image.run_commands(COMPILE)
        if recipe.environment:
            image = image.env(dict(recipe.environment))
        if recipe.apt_packages:
            image = image.apt_install(*recipe.apt_packages)
        for number, packages in enumerate(recipe.packages):
            image = _install(image, recipe, packages, folder / f"{number}-requirements.txt")
        if recipe.project_install:
            image = image.add_local_dir(source, CODE_FOLDER, copy=True, ignore=[])
            install = f"cd {CODE_FOLDER} && {recipe.project_install}"
            # Not every tool compiles what it installs.
            image = image.run_commands(f"{install} && {COMPILE}")
        if recipe.runtime_environment:
            image = image.env(dict(recipe.runtime_environment))
        return image

    def _base(self, recipe: ImageRecipe) -> modal.Image:
        import modal

        base, force = recipe.base, recipe.force_build
        if isinstance(base, Slim):
            return modal.Image.debian_slim(base.python_version, force_build=force)
        if isinstance(base, FromRegistry):
            secret = None
            if base.private and self.registry is not None:
                # These names tell Modal what kind of credentials they are (`modal/_image.py:490`).
                secret = modal.Secret.from_dict(
                    {
                        "REGISTRY_USERNAME": self.registry.username,
                        "REGISTRY_PASSWORD": self.registry.password,
                    }
                )
            return modal.Image.from_registry(base.image, secret=secret, force_build=force)
        if isinstance(base, FromDockerfile):
            return _from_dockerfile(base, force)
        if isinstance(base, Named):
            return published_image(self.connection, base.name, self.environment)
        assert isinstance(base, BuiltByZenML)
        raise InternalError("The image that ZenML builds was not built before it was needed.")


def published_image(connection: Connection, name: str, environment: str | None) -> modal.Image:
    """Return the image that a name, with or without a tag, or an id ("im-...") stands for.

    Args:
        environment: Where it is, unless its name says that; None for the default environment.
    """
    import modal

    client = connection.client
    if Named(name).is_id:
        return modal.Image.from_id(name, client=client)
    within = None if "/" in name else environment
    return modal.Image.from_name(name, environment_name=within, client=client)


def build_images(
    connection: Connection,
    plan: Plan,
    source: Path,
    registry: RegistryCredentials | None = None,
    pinned: PinnedBuilder | None = None,
) -> dict[str, str]:
    """Have Modal build the images of all sandboxes side by side.

    Args:
        connection: The connection to Modal.
        plan: The plan, with the images.
        source: The source tree.
        registry: The login of the registry of private images.
        pinned: The image builder version; None for the one of the SDK or the environment.

    Returns:
        Each key of `plan.images` -> Modal's id of the built image.

    Raises:
        ModalrunError: As for `Builder.build`.
    """
    environment = plan.settings.modal_environment
    app = connection.app(plan.settings.app_name, environment)
    builder = Builder(connection, app, environment, registry)
    with image_builder.pinned(pinned):
        if len(plan.images) == 1:
            # In this thread, where Ctrl-C interrupts it.
            ((key, recipe),) = plan.images.items()
            return {key: builder.build(recipe, source).object_id}
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="image") as pool:
            built = pool.map(lambda recipe: builder.build(recipe, source), plan.images.values())
            return {key: image.object_id for key, image in zip(plan.images, built, strict=True)}


def key_of(recipe: ImageRecipe, builder: str) -> str | None:
    """Return the key of an image: recipes with the same one are the same image to Modal.

    Args:
        recipe: The recipe.
        builder: The image builder version.

    Returns:
        None where the image depends on more than its recipe: on files, on a published name, on a
        login, or on when it is built.
    """
    from modal.config import config

    anew = recipe.force_build or config.get("force_build") or config.get("ignore_cache")
    plain = isinstance(recipe.base, Slim) or (
        isinstance(recipe.base, FromRegistry) and not recipe.base.private
    )
    if anew or not plain or recipe.project_install:
        return None
    values = [builder, type(recipe.base).__name__, asdict(recipe)]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _install(
    image: modal.Image, recipe: ImageRecipe, packages: Packages, file: Path
) -> modal.Image:
    lines = [*packages.lines, *packages.pins]
    options = shlex.join(recipe.installer_args)
    if is_plain(lines):
        if recipe.installer == "pip":
            return image.pip_install(*lines, extra_options=options)
        return image.uv_pip_install(*lines, extra_options=options)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if recipe.installer == "pip":
        return image.pip_install_from_requirements(str(file), extra_options=options)
    return image.uv_pip_install(requirements=[str(file)], extra_options=options)


def _from_dockerfile(base: FromDockerfile, force: bool) -> modal.Image:
    import modal

    if base.context is None:
        # Nothing is copied, so any folder will do; the Dockerfile's own always exists.
        options: dict[str, Any] = {"context_dir": base.path.parent, "ignore": []}
    else:
        options = {"context_dir": base.context, "ignore": _stays_behind(base, base.context)}
    return modal.Image.from_dockerfile(
        base.path, build_args=dict(base.build_args), force_build=force, **options
    )


def _stays_behind(base: FromDockerfile, context: Path) -> Callable[[Path], bool]:
    """Return what a build context leaves out: credential files too, unless `COPY` names them."""
    # As the SDK looks for it (`modal/_utils/docker_utils.py:113`, 1.6.4).
    places = (
        base.path.with_name(f"{base.path.name}.dockerignore"),
        base.path.with_name(".dockerignore"),
        context / ".dockerignore",
    )
    usual = (place for place in places if place.is_file() and place.is_relative_to(context))
    file = base.ignore or next(usual, None)
    text = read_text(file, "file", "dockerignore") if file else ""
    matches = dockerignore_matcher(text.splitlines(), str(file))
    words = read_text(base.path, "Dockerfile", "dockerfile").split()
    named = {Path(word.strip("/")) for word in words}
    return lambda path: matches(path) or (path not in named and bool(credential_reason(path)))


def _failed(
    image: modal.Image, error: modal.exception.ImageBuildError, connection: Connection
) -> RunFailedError:
    """Make the error of a failed build, with the end of its log, which the SDK's error lacks."""
    lines: list[str] = []
    # Without its log, the failure must still be reported.
    with contextlib.suppress(Exception):
        text = "".join(entry.message for entry in image.logs.tail(entries=LOG_LINES))
        lines = text.splitlines()[-LOG_LINES:]
    shown = "".join(f"\n  | {line}" for line in lines)
    log = f"\nThe end of its build log:{shown}" if shown else f"\n{error}"
    command = connection.shell_command(f"image logs {error.image_id}")
    return RunFailedError(
        f"Modal could not build the image {error.image_id}.{log}",
        hint=f"'{command}' shows the whole log. The image is configured under 'settings: docker:'.",
    )
