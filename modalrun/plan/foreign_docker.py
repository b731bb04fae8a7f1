"""Check the Docker settings of a deployment that somebody else may have made. Pure.

They must not choose what is read and uploaded from this machine, or run a command on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modalrun.errors import UsageError
from modalrun.plan.deployment import Deployment
from modalrun.plan.requirements import resolve_path
from modalrun.spec.precedence import Layers

_PATHS = ("dockerfile", "build_context_root", "requirements", "pyproject_path", "dockerignore")
_WITH_DOCKERIGNORE = ("build_config", "parent_image_build_config")
_COMMANDS = ("pyproject_export_command", "replicate_local_python_environment")
"""Settings whose value, where it is a list, is a command that ZenML runs on this machine."""

_HINT = (
    "If that is right, set it yourself: under 'settings: docker:' of a run spec, or for 'rerun'"
    " with '--set settings.docker.{0}=...'. A resumed run can't have it."
)


def check_foreign_docker(
    deployment: Deployment, source_root: Path, by_user: Layers, steps_by_user: Mapping[str, Layers]
) -> None:
    """Refuse Docker settings that name files outside of the source root, or commands.

    Args:
        deployment: The deployment, with the settings of the run spec and the command line.
        by_user, steps_by_user: What the user sets: these settings may do both.

    Raises:
        UsageError: There is such a setting.
    """
    _check(deployment.docker, source_root, by_user)
    for step in deployment.steps:
        if step.docker is not None:
            _check(step.docker, source_root, by_user, steps_by_user.get(step.name, {}))


def _check(docker: Mapping[str, Any], source_root: Path, *by_user: Layers) -> None:
    own = {name for layers in by_user for layer in layers.values() for name in layer.docker}
    real_root = source_root.resolve()
    for setting, name in _named(docker):
        path = resolve_path(name, source_root).resolve()
        if setting.partition(".")[0] not in own and not path.is_relative_to(real_root):
            raise UsageError(
                f"The Docker setting '{setting}' of the deployment names {name}, which is not below"
                f" the source root {source_root}.",
                hint=_HINT.format(setting),
            )
    for setting in _COMMANDS:
        if setting not in own and isinstance(value := docker.get(setting), list):
            raise UsageError(
                f"The Docker setting '{setting}' of the deployment is a command for this machine:"
                f" {' '.join(map(str, value))}.",
                hint=_HINT.format(setting),
            )


def _named(docker: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for setting in _PATHS:
        if isinstance(value := docker.get(setting), str):
            yield setting, value
    for section in _WITH_DOCKERIGNORE:
        config = docker.get(section)
        if isinstance(config, Mapping) and isinstance(value := config.get("dockerignore"), str):
            yield f"{section}.dockerignore", value
