"""Gather the packages that Docker settings ask for on this machine and this stack.

Written against `zenml/utils/pipeline_docker_image_builder.py`, ZenML 0.98.0. The result is plain
values that are stored with the deployment, so that a plan needs neither ZenML nor this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zenml.config import DockerSettings
from zenml.integrations.registry import integration_registry
from zenml.stack import Stack
from zenml.utils.pipeline_docker_image_builder import PipelineDockerImageBuilder

from modalrun.errors import UsageError
from modalrun.plan.deployment import Deployment
from modalrun.plan.image_layers import GATHERED
from modalrun.plan.requirements import logical_lines, read_requirements, resolve_path
from modalrun.util.nearest import did_you_mean
from modalrun.zenml_api.errors import first_line

_ORIGINS = {
    ".zenml_local_requirements": "replicate_local_python_environment",
    ".zenml_stack_integration_requirements": "the stack",
    ".zenml_integration_requirements": "required_integrations",
    ".zenml_pyproject_requirements": "pyproject",
    ".zenml_user_requirements": "requirements",
}
"""ZenML's names for the requirements files that it makes -> the settings they come from."""


def with_packages(
    deployment: Deployment, stack: Stack, source_root: Path, *, built: bool
) -> Deployment:
    """Add to the Docker settings of a deployment and its steps the packages that they ask for.

    Args:
        source_root: What relative paths are relative to.
        built: Whether images are built from it; the local Modal server only records the packages.

    Raises:
        UsageError: As for `gather`.
    """

    def complete(docker: Mapping[str, Any]) -> dict[str, Any]:
        own = {name: value for name, value in docker.items() if name != GATHERED}
        settings = DockerSettings.model_validate(own)
        if settings.skip_build:
            return own
        return {**own, GATHERED: gather(settings, stack, source_root, run_commands=built)}

    return replace(
        deployment,
        docker=complete(deployment.docker),
        steps=tuple(
            step if step.docker is None else replace(step, docker=complete(step.docker))
            for step in deployment.steps
        ),
    )


def gather(
    settings: DockerSettings, stack: Stack, source_root: Path, *, run_commands: bool
) -> dict[str, Any]:
    """Return the Python and Debian packages that Docker settings ask for, in ZenML's order.

    Args:
        settings: Of the pipeline, or of a step with the pipeline's merged in.
        stack: Its components' requirements count unless `install_stack_requirements` is off.
        source_root: What relative paths are relative to. ZenML's source root must be the same.
        run_commands: Whether commands are run that list the local environment or export a
            pyproject.toml. They take seconds, and a run on the local Modal server needs neither.

    Returns:
        {"packages": [{"origin": ..., "lines": [...]}], "apt": [...]}, as
        `plan.docker_settings` reads it.

    Raises:
        UsageError: An integration is unknown, a file is missing, or a command failed.
    """
    _check_integrations(settings)
    changes: dict[str, Any] = {}
    if isinstance(settings.requirements, str):
        # Read here, since ZenML doesn't follow the '-r' lines of a requirements file.
        path = resolve_path(settings.requirements, source_root)
        changes["requirements"] = list(read_requirements(path))
    if settings.pyproject_path:
        changes["pyproject_path"] = str(
            resolve_path(settings.pyproject_path, source_root).absolute()
        )
    if not run_commands:
        changes |= {
            "replicate_local_python_environment": None,
            "pyproject_path": None,
            # It would also export a pyproject.toml that is not named.
            "disable_automatic_requirements_detection": True,
        }
    try:
        files = PipelineDockerImageBuilder.gather_requirements_files(
            docker_settings=settings.model_copy(update=changes), stack=stack, log=False
        )
    except (RuntimeError, FileNotFoundError, ValueError, KeyError) as error:
        raise UsageError(
            f"The requirements of the Docker settings can't be gathered: {first_line(error)}",
            hint="'replicate_local_python_environment' and 'pyproject_export_command' run a command"
            " on this machine; try it by hand.",
        ) from error
    groups = [
        {"origin": _ORIGINS.get(name, name), "lines": list(logical_lines(content))}
        for name, content, _ in files
    ]
    return {"packages": [group for group in groups if group["lines"]], "apt": _apt(settings, stack)}


def _apt(settings: DockerSettings, stack: Stack) -> list[str]:
    packages = list(stack.apt_packages) if settings.install_stack_requirements else []
    for name in settings.required_integrations:
        packages += integration_registry.integrations[name].APT_PACKAGES
    return list(dict.fromkeys(packages))


def _check_integrations(settings: DockerSettings) -> None:
    # Asked for only where one is named: listing them imports them all.
    for name in settings.required_integrations:
        known = integration_registry.integrations
        if name not in known:
            raise UsageError(
                f"The Docker setting 'required_integrations' names '{name}', which is no ZenML"
                " integration.",
                hint=did_you_mean(name, known, "See 'zenml integration list'."),
            )
