"""Register modalrun's flavor, an orchestrator and a stack in ZenML. Read from ZenML 0.98.0."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.models import ComponentResponse
from zenml.utils import source_utils

from modalrun.errors import UsageError
from modalrun.plan.stack import StackDescription
from modalrun.run.run_plan import Target
from modalrun.zenml_api.component import FLAVOR
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.stack_description import describe_stack
from modalrun.zenml_api.stacks import find_stack, load_stack

SOURCE = "modalrun.flavor.ModalrunOrchestratorFlavor"


@dataclass(frozen=True)
class Registered:
    """The result of a registration.

    Attributes:
        steps: What is registered, and whether it was registered just now.
        undo: Commands that delete what was registered just now.
        active: Whether the stack is the active one.
    """

    steps: tuple[tuple[str, bool], ...]
    undo: tuple[str, ...]
    active: bool = False


def base_stack(name_or_id: str | None, source_root: Path) -> StackDescription:
    """Read the stack that a new one takes its components from.

    Args:
        name_or_id: The stack; None for the active one.
        source_root: The project's. ZenML names the flavor's class relative to it.

    Raises:
        NotFoundError: There is no such stack.
    """
    source_utils.set_custom_source_root(str(source_root))
    with translated():
        return describe_stack(load_stack(find_stack(name_or_id)))


def register(base: StackDescription, name: str, target: Target) -> Registered:
    """Register the flavor, and an orchestrator and a stack of one name, if they don't exist yet.

    Args:
        base: The stack whose other components the new one gets.
        name: Of orchestrator and stack.

    Raises:
        UsageError: A name is taken by something else. Nothing was registered.
    """
    with translated():
        client = Client()
        new_flavor = not _has_flavor(client)
        orchestrator = _orchestrator(client, name, target)
        new_orchestrator = orchestrator is None
        new_stack = not _has_stack(client, name)
        if new_flavor:
            client.create_flavor(SOURCE, StackComponentType.ORCHESTRATOR)
        if orchestrator is None:
            orchestrator = client.create_stack_component(
                name, FLAVOR, StackComponentType.ORCHESTRATOR, {"target": target}
            )
        if new_stack:
            model = client.get_stack(base.id, allow_name_prefix_match=False)
            components = {kind: [one.id for one in ones] for kind, ones in model.components.items()}
            client.create_stack(
                name, {**components, StackComponentType.ORCHESTRATOR: [orchestrator.id]}
            )
        active = client.active_stack_model.name
    quoted = shlex.quote(name)
    stack = f"stack '{name}', made from '{base.name}'" if new_stack else f"stack '{name}'"
    parts = (
        (f"flavor '{FLAVOR}'", new_flavor, f"zenml orchestrator flavor delete {FLAVOR}"),
        (
            f"orchestrator '{name}' (target {target})",
            new_orchestrator,
            f"zenml orchestrator delete {quoted}",
        ),
        (stack, new_stack, f"zenml stack delete {quoted} -y"),
    )
    # ZenML deletes no orchestrator of a stack, and no flavor of an orchestrator.
    undo = [command for _, new, command in reversed(parts) if new]
    if new_stack:
        # Nor the active stack, and the user may have made it that.
        undo.insert(0, f"zenml stack set {shlex.quote(active)}")
    return Registered(
        tuple((text if new else f"{text} is there already", new) for text, new, _ in parts),
        tuple(undo),
        active == name,
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


def _has_stack(client: Client, name: str) -> bool:
    try:
        stack = client.get_stack(name, allow_name_prefix_match=False)
    except KeyError:
        return False
    if [one.name for one in stack.components[StackComponentType.ORCHESTRATOR]] != [name]:
        raise _taken(f"a stack '{name}' with another orchestrator")
    return True


def _taken(what: str) -> UsageError:
    return UsageError(
        f"ZenML has {what} already. Nothing was registered.", hint="Choose another --name."
    )
