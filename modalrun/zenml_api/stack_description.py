"""Describe a stack: what the planner must know of it. A process that runs steps does without it."""

from __future__ import annotations

from zenml.config.global_config import GlobalConfiguration
from zenml.enums import StackComponentType, StoreType
from zenml.stack import Stack, StackComponent
from zenml.stack.authentication_mixin import AuthenticationConfigMixin

from modalrun.plan.environment import gives_credentials
from modalrun.plan.stack import Component, StackDescription
from modalrun.plan.store_credentials import held_by

_CLOUDS = ("s3://", "gs://", "gcs://", "az://", "abfs://", "abfss://")


def _is_ambient(component: StackComponent, stack: Stack) -> bool:
    """Return whether an artifact store takes its credentials from where it is used."""
    if component.type != StackComponentType.ARTIFACT_STORE or component.connector is not None:
        return False
    config = component.config.model_dump(exclude_none=True)
    custom = not isinstance(component.config, AuthenticationConfigMixin)
    if component.config.is_local or component.local_path is not None or held_by(config):
        return False
    if custom and (set(config) != {"path"} or not config["path"].startswith(_CLOUDS)):
        # One of its other fields may be the way to credentials.
        return False
    owners = (component, stack)
    return not any(one.secrets or gives_credentials(one.environment) for one in owners)


def describe_stack(stack: Stack) -> StackDescription:
    """Return the properties of a stack that decide whether it works with Modal."""
    store = GlobalConfiguration().store_configuration
    components = [
        Component(
            kind=component.type.value,
            name=component.name,
            flavor=component.flavor,
            is_local=component.config.is_local,
            local_path=component.local_path,
            ambient=_is_ambient(component, stack),
        )
        for component in stack.all_components
        if component.type != StackComponentType.ORCHESTRATOR
    ]
    return StackDescription(
        id=str(stack.id),
        name=stack.name,
        components=tuple(components),
        server=None if store.type == StoreType.SQL else store.url,
        orchestrator=stack.orchestrator.name,
    )
