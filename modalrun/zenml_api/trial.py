"""Provide what `modalrun smoke` needs of ZenML when no pipeline is compiled."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from zenml.config.global_config import GlobalConfiguration
from zenml.enums import APITokenType
from zenml.orchestrators.utils import get_config_environment_vars
from zenml.stack import Stack
from zenml.zen_stores.rest_zen_store import RestZenStore

from modalrun.plan.deployment import Deployment
from modalrun.plan.stack import StackDescription
from modalrun.spec.precedence import Origin, SettingsLayer
from modalrun.zenml_api.compiling.requirements import with_packages
from modalrun.zenml_api.component import component_defaults, component_values
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.orchestrator_config import credentials
from modalrun.zenml_api.records.runs import complete
from modalrun.zenml_api.stack_description import describe_stack
from modalrun.zenml_api.stacks import find_stack, load_stack, orchestrator_of

TOKEN = "ZENML_STORE_API_TOKEN"  # noqa: S105 (a name)
TOKEN_SECONDS = 1800
"""How long the token of a smoke test is valid: a build of its image may come before its use."""

_TAKEN = ("region", "cloud", "modal_environment", "workspace", "secrets")


@dataclass(frozen=True)
class Ground:
    """What a smoke test without a pipeline runs on, with the attributes of `Compiled`."""

    deployment: Deployment
    stack: Stack
    stack_description: StackDescription
    credentials: tuple[str, str] | None = field(repr=False)


def of_active_stack(source_root: Path, *, built: bool) -> Ground:
    """Return the active stack, and a deployment for it without steps.

    Args:
        source_root: What relative paths are relative to.
        built: Whether it is for Modal's cloud, which builds an image from the deployment.
    """
    with translated():
        model = find_stack(None)
        values = component_values(orchestrator_of(model))
        stack = load_stack(model)
        defaults = component_defaults(values).settings
        layer = SettingsLayer({key: defaults[key] for key in _TAKEN if key in defaults})
        bare = Deployment("smoke", (), layers={Origin.COMPONENT: layer})
        deployment = with_packages(bare, stack, source_root, built=built)
        token = credentials(values) if built else None
        return Ground(deployment, stack, describe_stack(stack), token)


def environment(stack: Stack) -> dict[str, str]:
    """Return the variables with which a sandbox uses ZenML, as those of a run. They hold a token.

    A run's token is valid until the run ends. Without a run there is one that soon expires.
    """
    with translated():
        variables, secrets = get_config_environment_vars()
        store = GlobalConfiguration().zen_store
        if TOKEN in secrets and isinstance(store, RestZenStore):
            secrets[TOKEN] = store.get_api_token(
                token_type=APITokenType.GENERIC, expires_in=TOKEN_SECONDS
            )
        return complete({**variables, **secrets}, stack, str(uuid4()))
