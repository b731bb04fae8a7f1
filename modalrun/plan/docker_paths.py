"""Check the files of this machine that the Docker settings of somebody's deployment name. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modalrun.errors import UsageError
from modalrun.plan.deployment import Deployment
from modalrun.plan.image_layers import GATHERED
from modalrun.plan.requirements import resolve_path
from modalrun.spec.precedence import Layers

_PATHS = ("dockerfile", "build_context_root", "requirements", "dockerignore")
_WITH_DOCKERIGNORE = ("build_config", "parent_image_build_config")


def check_paths(
    deployment: Deployment, source_root: Path, by_user: Layers, steps_by_user: Mapping[str, Layers]
) -> None:
    """Refuse Docker settings of a deployment that name a file outside of the source root.

    Whoever made the deployment must not choose what is read and uploaded from this machine.

    Args:
        deployment: The deployment, with the settings of the run spec and the command line.
        source_root: The source root.
        by_user, steps_by_user: What the user sets: these settings may name any file.

    Raises:
        UsageError: One does.
    """
    _check(deployment.docker, source_root, by_user)
    for step in deployment.steps:
        if step.docker is not None:
            _check(step.docker, source_root, by_user, steps_by_user.get(step.name, {}))


def _check(docker: Mapping[str, Any], source_root: Path, *by_user: Layers) -> None:
    own = {name for layers in by_user for layer in layers.values() for name in layer.docker}
    for setting, name in _named(docker):
        path = resolve_path(name, source_root).resolve()
        if setting.partition(".")[0] not in own and not path.is_relative_to(source_root.resolve()):
            raise UsageError(
                f"The Docker setting '{setting}' of the deployment names {name}, which is not below"
                f" the source root {source_root}.",
                hint="If it is the right one, name it yourself under 'settings: docker:' of a run"
                " spec.",
            )


def _named(docker: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for setting in _PATHS:
        # With gathered packages the file of requirements is not read.
        is_read = setting != "requirements" or GATHERED not in docker
        if is_read and isinstance(value := docker.get(setting), str):
            yield setting, value
    for section in _WITH_DOCKERIGNORE:
        config = docker.get(section)
        if isinstance(config, Mapping) and isinstance(value := config.get("dockerignore"), str):
            yield f"{section}.dockerignore", value
