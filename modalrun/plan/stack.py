"""Describe a ZenML stack as plain values, and check whether it works with Modal. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from modalrun.errors import UsageError


@dataclass(frozen=True)
class Component:
    """Describe one component of a stack.

    Attributes:
        kind: ZenML's type of it: "artifact_store", "orchestrator", ...
        is_local: Whether it depends on this machine.
        local_path: The folder on this machine that it keeps its state in, if it does.
    """

    kind: str
    name: str
    flavor: str
    is_local: bool = False
    local_path: str | None = None


@dataclass(frozen=True)
class StackDescription:
    """Describe a stack and the ZenML server that it belongs to.

    Attributes:
        components: Its components except the orchestrator, which modalrun replaces.
        server: The URL of the ZenML server; None for a database on this machine.
    """

    id: str
    name: str
    components: tuple[Component, ...] = ()
    server: str | None = None


def problems_on_modal(stack: StackDescription) -> list[str]:
    """Return why a run on Modal can't work with this stack; each reason is one sentence."""
    found = []
    if stack.server is None:
        found.append(
            "ZenML's records are in a database on this machine; a sandbox on Modal needs a ZenML"
            " server to connect to (zenml login)."
        )
    elif is_on_this_machine(stack.server):
        found.append(
            f"The ZenML server {stack.server} is on this machine; a sandbox on Modal can't reach"
            " it."
        )
    for component in stack.components:
        kind = component.kind.replace("_", " ")
        subject = f"The {kind} '{component.name}' ({component.flavor})"
        if component.local_path is not None:
            found.append(
                f"{subject} keeps its files on this machine, in {component.local_path}; a sandbox"
                " on Modal needs a remote one."
            )
        elif component.is_local and component.kind != "deployer":
            found.append(f"{subject} runs on this machine; a sandbox on Modal can't reach it.")
    return found


def wrong_stack(stack: StackDescription, problems: Iterable[str]) -> UsageError:
    """Return one error with all problems of a stack."""
    listed = "".join(f"\n  - {problem}" for problem in problems)
    return UsageError(
        f"The stack '{stack.name}' can't be used with target 'modal':{listed}",
        hint="Use a stack with remote components ('stack:' in the run spec), or '--target local'.",
    )


def is_on_this_machine(url: str) -> bool:
    """Whether a URL names this machine by a loopback address."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
