"""Describe a ZenML stack as plain values, and check whether it works with Modal. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from modalrun.errors import UsageError

_PRIVATE_NAMES = (".local", ".internal", ".lan", ".home.arpa")
"""Domains that no public name server knows (RFC 6762, RFC 8375, ICANN's `.internal`)."""


@dataclass(frozen=True)
class Component:
    """Describe one component of a stack.

    Attributes:
        kind: ZenML's type of it: "artifact_store", "orchestrator", ...
        is_local: Whether it depends on this machine.
        local_path: The folder on this machine that it keeps its state in, if it does.
        ambient: Whether it is an artifact store that takes its credentials from where it is used:
            the environment, a file in the home folder.
    """

    kind: str
    name: str
    flavor: str
    is_local: bool = False
    local_path: str | None = None
    ambient: bool = False


@dataclass(frozen=True)
class StackDescription:
    """Describe a stack and the ZenML server that it belongs to.

    Attributes:
        components: Its components except the orchestrator, which modalrun replaces.
        server: The URL of the ZenML server; None for a database on this machine.
        orchestrator: The name of its orchestrator; None if an older deployment file has none.
    """

    id: str
    name: str
    components: tuple[Component, ...] = ()
    server: str | None = None
    orchestrator: str | None = None


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


def wrong_stack(
    stack: StackDescription, problems: Sequence[str], no_login: Sequence[str] = ()
) -> UsageError:
    """Return one error with all problems of a stack.

    Args:
        problems: Those that another stack solves.
        no_login: Why sandboxes can't log in to its artifact store; the sentences say what helps.
    """
    listed = "".join(f"\n  - {problem}" for problem in (*problems, *no_login))
    hint = "Use a stack with remote components ('stack:' in the run spec), or '--target local'."
    return UsageError(
        f"The stack '{stack.name}' can't be used with target 'modal':{listed}",
        hint=hint if problems else None,
    )


def is_on_this_machine(url: str) -> bool:
    """Whether a URL names this machine by a loopback address."""
    host = urlsplit(url).hostname or ""
    address = _address(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def has_private_address(url: str) -> bool:
    """Whether the host in a URL is one that only a private network knows."""
    host = urlsplit(url).hostname or ""
    return bool(host) and not is_on_this_machine(url) and is_private(host)


def is_private(host: str) -> bool:
    """Whether a name or an IP address is one that only a private network knows."""
    address = _address(host)
    if address is not None:
        return not address.is_global
    name = host.rstrip(".")
    return "." not in name or name.endswith(_PRIVATE_NAMES)


def private_server(url: str) -> str:
    """Say that Modal may not reach a server with a private address."""
    return (
        f"The ZenML server {url} has a private address; a sandbox on Modal reaches it only through"
        " a proxy or VPN."
    )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
