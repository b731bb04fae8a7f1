"""Find and load stacks, with our orchestrator in place of their own."""

from __future__ import annotations

from typing import ClassVar

from zenml.artifact_stores import BaseArtifactStore, BaseArtifactStoreConfig
from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.models import ComponentResponse, StackResponse
from zenml.stack import Stack, StackComponent
from zenml.stack import stack as stack_module
from zenml.stack.stack_component import StackComponentConfig
from zenml.utils import pagination_utils

from modalrun.errors import NotFoundError, UsageError
from modalrun.util.nearest import did_you_mean
from modalrun.zenml_api.component import FLAVOR, OrchestratorComponent
from modalrun.zenml_api.errors import first_line
from modalrun.zenml_api.orchestrator import ModalOrchestrator
from modalrun.zenml_api.orchestrator_config import ModalOrchestratorConfig


def find_stack(name_or_id: str | None, *, at: str = "") -> StackResponse:
    """Return the stack of a name or id, or the active one.

    Args:
        name_or_id: The stack; None for the active one.
        at: Prefix of the error's message, such as the place that names the stack.

    Raises:
        NotFoundError: ZenML has no such stack.
    """
    client = Client()
    if name_or_id is None:
        return client.active_stack_model
    try:
        return client.get_stack(name_or_id, allow_name_prefix_match=False)
    except KeyError:
        names = [stack.name for stack in client.list_stacks(size=50).items]
        raise NotFoundError(
            f"{at}ZenML has no stack '{name_or_id}'.",
            hint=did_you_mean(name_or_id, names, f"There are: {', '.join(names)}."),
        ) from None


class ClosedArtifactStore(BaseArtifactStore):
    """Stand for an artifact store whose packages are missing where no artifact is read or written.

    ZenML's cache keys contain its id and path.
    """

    def _register(self) -> None:
        """Register no file system."""


# It has none of the methods for files.
setattr(ClosedArtifactStore, "__abstractmethods__", frozenset())  # noqa: B010


class ClosedArtifactStoreConfig(BaseArtifactStoreConfig):
    """Hold the path of an artifact store of any scheme."""

    SUPPORTED_SCHEMES: ClassVar[set[str]] = {""}


def load_stack(
    model: StackResponse,
    *,
    closed: bool = False,
    orchestrator: type[ModalOrchestrator] = ModalOrchestrator,
) -> Stack:
    """Load a stack with our orchestrator under the id and name of its own.

    It is put into ZenML's cache of stacks (`stack/stack.py:225`), so that all of ZenML's code in
    this process sees it: the compiler keeps and checks orchestrator settings, and `StepLauncher`
    (`step_launcher.py:151`) runs steps as a sandbox needs it. Nothing is registered, and the
    integration of the stack's own orchestrator needn't be installed.

    Args:
        model: The stack as ZenML stores it.
        closed: Whether this process reads and writes records only: it needs no component whose
            packages are missing.
        orchestrator: The class of our orchestrator.

    Raises:
        UsageError: Another component of the stack can't be loaded.
    """
    cached = stack_module._STACK_CACHE.get((model.id, model.updated))
    if cached is not None and isinstance(cached.orchestrator, orchestrator):
        return cached
    components: dict[StackComponentType, list[StackComponent]] = {}
    hydrated = pagination_utils.depaginate(
        Client().list_stack_components, stack_id=model.id, hydrate=True
    )
    for component in hydrated:
        if component.type == StackComponentType.ORCHESTRATOR:
            # "local" keeps ZenML from checking the stack; `plan.stack` checks it.
            config = ModalOrchestratorConfig(target="local")
            made: StackComponent | None = _made(orchestrator, component, config, FLAVOR)
        else:
            made = _loaded(component, model.name, closed)
        if made is not None:
            components.setdefault(component.type, []).append(made)
    stack = Stack.from_components_v2(
        id=model.id,
        name=model.name,
        components=components,
        environment=model.environment,
        secrets=model.secrets,
    )
    stack._model = model
    stack.validate_log_store()
    stack_module._STACK_CACHE[(model.id, model.updated)] = stack
    return stack


def _loaded(component: ComponentResponse, stack: str, closed: bool) -> StackComponent | None:
    """Load a component of a stack; None for one that a closed stack does without."""
    try:
        return StackComponent.from_model(component)
    except Exception as error:
        if closed and component.type == StackComponentType.ARTIFACT_STORE:
            config = ClosedArtifactStoreConfig(path=component.configuration["path"])
            return _made(ClosedArtifactStore, component, config, component.flavor_name)
        if closed:
            # ZenML fails with a KeyError for a missing package of a custom flavor (0.98.0).
            return None
        if not isinstance(error, ImportError):
            raise
        raise UsageError(
            f"The component '{component.name}' ({component.type.value}) of the stack"
            f" '{stack}' can't be loaded: {first_line(error)}",
            hint=f"Install what it needs: zenml integration install {component.flavor_name}",
        ) from error


def _made(
    made_of: type[StackComponent],
    component: ComponentResponse,
    config: StackComponentConfig,
    flavor: str,
) -> StackComponent:
    return made_of(
        name=component.name,
        id=component.id,
        config=config,
        flavor=flavor,
        type=component.type,
        user=component.user_id,
        created=component.created,
        updated=component.updated,
        environment=component.environment,
        secrets=component.secrets,
    )


def orchestrator_of(model: StackResponse) -> OrchestratorComponent:
    """Return the orchestrator of a stack as ZenML stores it."""
    kind = StackComponentType.ORCHESTRATOR
    found = Client().get_stack_component(kind, model.components[kind][0].id)
    return OrchestratorComponent(found.name, found.flavor_name, found.configuration)
