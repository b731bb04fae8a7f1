"""Registering modalrun in ZenML: the flavor, an orchestrator, a stack. ZenML 0.98.0."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.models import ComponentResponse, StackResponse
from zenml.utils import source_utils

from modalrun.errors import NotFoundError, UsageError
from modalrun.plan.stack import StackFacts
from modalrun.run.run_plan import Target
from modalrun.util.nearest import nearest
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.orchestrator_config import FLAVOR
from modalrun.zenml_api.stacks import stack_facts, stand_in

SOURCE = "modalrun.flavor.ModalrunOrchestratorFlavor"


@dataclass(frozen=True)
class Registered:
    """What is registered now.

    Attributes:
        steps: What it is, and whether it was registered just now.
        undo: Commands that take back what was registered just now.
        active: Whether the stack is the active one.
    """

    steps: tuple[tuple[str, bool], ...]
    undo: tuple[str, ...]
    active: bool = False


def stack_to_start_from(name_or_id: str | None, source_root: Path) -> StackFacts:
    """A stack, or the active one.

    Args:
        name_or_id: The stack; None for the active one.
        source_root: The project's. ZenML names the flavor's class relative to it.

    Raises:
        NotFoundError: There is no such stack.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    source_utils.set_custom_source_root(str(source_root))
    with translated():
        client = Client()
        if name_or_id is None:
            return stack_facts(stand_in(client.active_stack_model))
        found = _stack(client, name_or_id)
        if found is None:
            names = [stack.name for stack in client.list_stacks(size=50).items]
            close = nearest(name_or_id, names)
            raise NotFoundError(
                f"ZenML has no stack '{name_or_id}'.",
                hint=f"Did you mean '{close}'?" if close else f"There are: {', '.join(names)}.",
            )
        return stack_facts(stand_in(found))


def register(base: StackFacts, name: str, target: Target) -> Registered:
    """Register the flavor, and an orchestrator and a stack of one name; what is there stays.

    Args:
        base: The stack whose other components the new one gets.
        name: Of orchestrator and stack.
        target: Where the stack's runs go.

    Raises:
        UsageError: A name is taken by something else. Nothing was registered.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        client = Client()
        flavor = _has_flavor(client)
        orchestrator = _orchestrator(client, name, target)
        stack = _stack(client, name)
        if stack is not None:
            _check_stack(stack, name)
        if not flavor:
            client.create_flavor(SOURCE, StackComponentType.ORCHESTRATOR)
        if orchestrator is None:
            orchestrator = client.create_stack_component(
                name, FLAVOR, StackComponentType.ORCHESTRATOR, {"target": target}
            )
            made = True
        else:
            made = False
        if stack is None:
            client.create_stack(name, _components(client, base, orchestrator.id))
        active = client.active_stack_model.name == name
    wanted = (
        (f"flavor '{FLAVOR}'", not flavor, f"zenml orchestrator flavor delete {FLAVOR}"),
        (f"orchestrator '{name}' (target {target})", made, f"zenml orchestrator delete {name}"),
        (
            f"stack '{name}', made from '{base.name}'" if stack is None else f"stack '{name}'",
            stack is None,
            f"zenml stack delete {name} -y",
        ),
    )
    return Registered(
        tuple((text if new else f"{text} is there already", new) for text, new, _ in wanted),
        # A stack can't outlive its orchestrator, nor that its flavor.
        tuple(command for _, new, command in reversed(wanted) if new),
        active,
    )


def _has_flavor(client: Client) -> bool:
    found = client.list_flavors(name=f"equals:{FLAVOR}", type=StackComponentType.ORCHESTRATOR)
    if not found.total:
        return False
    if found.items[0].source != SOURCE:
        raise UsageError(
            f"ZenML has an orchestrator flavor '{FLAVOR}' that isn't modalrun's"
            f" ({found.items[0].source}). Nothing was registered.",
            hint=f"Delete it: 'zenml orchestrator flavor delete {FLAVOR}'.",
        )
    return True


def _orchestrator(client: Client, name: str, target: Target) -> ComponentResponse | None:
    found = client.list_stack_components(
        name=f"equals:{name}", type=StackComponentType.ORCHESTRATOR, hydrate=True
    )
    if not found.total:
        return None
    (component,) = found.items
    if component.flavor_name != FLAVOR:
        raise _taken(f"an orchestrator '{name}' of the flavor '{component.flavor_name}'")
    its_target = component.configuration.get("target", "modal")
    if its_target != target:
        raise _taken(f"an orchestrator '{name}' with the target '{its_target}'")
    return component


def _check_stack(stack: StackResponse, name: str) -> None:
    orchestrators = stack.components[StackComponentType.ORCHESTRATOR]
    if [one.name for one in orchestrators] != [name]:
        raise _taken(f"a stack '{name}' with another orchestrator")


def _taken(what: str) -> UsageError:
    return UsageError(
        f"ZenML has {what} already. Nothing was registered.", hint="Choose another --name."
    )


def _components(
    client: Client, base: StackFacts, orchestrator: UUID
) -> dict[StackComponentType, list[UUID]]:
    model = client.get_stack(base.id, allow_name_prefix_match=False)
    return {
        **{kind: [one.id for one in ones] for kind, ones in model.components.items()},
        StackComponentType.ORCHESTRATOR: [orchestrator],
    }


def _stack(client: Client, name_or_id: str) -> StackResponse | None:
    try:
        return client.get_stack(name_or_id, allow_name_prefix_match=False)
    except KeyError:
        return None
