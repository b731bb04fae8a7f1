"""Decide whether a compiled deployment can be submitted without ZenML's own client. Pure.

The client takes four seconds, most of them for its import. Where a submission is a usual one, a few
requests to ZenML's server leave the same records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modalrun.plan.deployment import Deployment
from modalrun.plan.image_layers import GATHERED
from modalrun.plan.image_recipe import BuiltByZenML
from modalrun.plan.model import Plan
from modalrun.plan.stack import StackDescription

_USUAL_LOGIN = "OAUTH2_PASSWORD_BEARER"
_PRO = "cloud"
"""Values of ZenML's `AuthScheme` and `ServerDeploymentType` (0.98.0)."""

_REPLAY = (
    *("steps_to_skip", "skip_successful_steps"),
    *("step_input_overrides", "step_default_input_overrides"),
)
"""Of a pipeline's configuration: only a run that replays another one has them."""

_READ_HERE = ("pyproject_path", "replicate_local_python_environment")
"""Docker settings whose packages are those of the machine that submits."""


@dataclass(frozen=True)
class Conditions:
    """Hold what a deployment was compiled against, and what only ZenML's own code can compute.

    Attributes:
        project: The id of the active project.
        stack: The ids of the stack and its components -> when each was changed last.
        cache_keys: ZenML's cache keys of steps that wait for no other one. Those whose key depends
            on more than the deployment are missing.
        docker_digest: As `Compiled.docker_digest`.
        built: Whether the packages were gathered for images that are built: target 'modal'.
        has_token: Whether the stack's orchestrator has a Modal token of its own.
    """

    zenml: str
    project: str
    stack: Mapping[str, str]
    cache_keys: Mapping[str, str]
    docker_digest: str
    built: bool
    has_token: bool


@dataclass(frozen=True)
class ServerState:
    """Hold what ZenML's server says now.

    Attributes:
        version, login, kind: Its version, authentication scheme and type of deployment.
        project: The id of the active project.
        stack: As in `Conditions`.
    """

    version: str
    login: str
    kind: str
    project: str
    stack: Mapping[str, str]


def unusual(
    plan: Plan,
    deployment: Deployment,
    snapshot: Mapping[str, Any],
    *,
    description: StackDescription,
    conditions: Conditions,
    now: ServerState,
    zenml: str,
) -> str | None:
    """Return why a submission needs ZenML's own client; None if a few requests do.

    Args:
        plan, deployment: What is to be run.
        snapshot: The deployment in ZenML's form, as plain values.
        description: The stack that it was compiled for.
        conditions: What it was compiled against.
        now: The state of ZenML's server.
        zenml: The version that is installed.
    """
    configuration = snapshot["pipeline_configuration"]
    configurations = [one["config"] for one in snapshot["step_configurations"].values()]
    on_modal = plan.target == "modal"
    reasons = {
        "the versions of ZenML differ": len({conditions.zenml, now.version, zenml}) > 1,
        "the server has no usual login": now.login != _USUAL_LOGIN,
        "the server is one of ZenML Pro": now.kind == _PRO,
        "another project is active": now.project != conditions.project,
        "the stack has changed": dict(now.stack) != dict(conditions.stack),
        "the orchestrator has a Modal token": on_modal and conditions.has_token,
        "the packages were gathered for another target": on_modal != conditions.built,
        "a step has a step operator": any(one.get("step_operator") for one in configurations),
        "it replays a run": any(configuration.get(name) for name in _REPLAY),
        "the stack has a container registry": any(
            component.kind == "container_registry" for component in description.components
        ),
        "ZenML builds an image": any(
            isinstance(recipe.base, BuiltByZenML) for recipe in plan.images.values()
        ),
        "the cache key of a step is not known": any(
            name not in conditions.cache_keys for name in cacheable(deployment)
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def cacheable(deployment: Deployment) -> list[str]:
    """Return the steps that ZenML looks up in its cache before any step has ended."""
    if deployment.dynamic:
        return []
    return [s.name for s in deployment.steps if s.planned.caches and not s.planned.upstream]


def gathers_here(docker: Mapping[str, Any]) -> bool:
    """Return whether Docker settings name packages that are read on the submitting machine."""
    return (
        (GATHERED not in docker and not docker.get("skip_build"))
        or isinstance(docker.get("requirements"), str)
        or docker.get("disable_automatic_requirements_detection") is False
        or any(docker.get(name) for name in _READ_HERE)
    )
