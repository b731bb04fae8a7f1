"""Check whether the sandboxes of a run can log in to the artifact store. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from modalrun.plan.deployment import Deployment
from modalrun.plan.environment import gives_credentials
from modalrun.plan.model import Plan
from modalrun.plan.sandbox_planner import some_steps
from modalrun.plan.stack import Component, StackDescription
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.util.text import shell_word

_FIELD = re.compile(
    r"key|.*(secret|token|password|credential|(access|account)_?key|connection_string).*",
    re.IGNORECASE,
)
"""Keys in the configuration of an artifact store that hold credentials, or name a secret."""


def held_by(configuration: Mapping[str, object]) -> bool:
    """Return whether the configuration of an artifact store has credentials, or names a secret."""
    return any(
        value and (_FIELD.fullmatch(key) or (isinstance(value, Mapping) and held_by(value)))
        for key, value in configuration.items()
    )


def problem(store: Component, where: str = "") -> str:
    """Say why a sandbox can't log in to an artifact store, and what helps."""
    name = shell_word(store.name)
    return (
        f"The artifact store '{store.name}' ({store.flavor}) has no credentials of its own: on this"
        f" machine it uses those of your environment, which no sandbox has{where}. Give it a"
        f" service connector ('zenml artifact-store connect {name} -i') or a ZenML secret ('zenml"
        f" artifact-store update {name} --authentication_secret=NAME'), or name a Modal secret that"
        " holds the credentials under 'settings: orchestrator: secrets:'."
    )


def missing(stack: StackDescription, plan: Plan, deployment: Deployment) -> list[str]:
    """Return a sentence for each artifact store that the sandboxes of a run can't log in to."""
    stores = [component for component in stack.components if component.ambient]
    if not stores or deployment.has_credentials:
        return []
    steps = list(_steps_without(plan, deployment))
    run_too = plan.dynamic and not _has_credentials(plan, plan.run_sandbox)
    if not steps and not run_too:
        return []
    where = f" ({some_steps(steps)})" if 0 < len(steps) < len(plan.steps) else ""
    return [problem(store, where) for store in stores]


def _steps_without(plan: Plan, deployment: Deployment) -> Iterator[str]:
    for planned, compiled in zip(plan.steps, deployment.steps, strict=True):
        sandbox = planned.sandbox or plan.run_sandbox
        if not compiled.has_credentials and not _has_credentials(plan, sandbox):
            yield planned.name


def _has_credentials(plan: Plan, sandbox: SandboxSpec) -> bool:
    # Only Modal knows what is in a secret.
    return bool(sandbox.secrets) or gives_credentials(plan.images[sandbox.image].variables)
