"""Modal's part of `modalrun doctor`, in a process of its own, beside ZenML's.

    python -m modalrun.modal_api.account_check modal|local

connects by Modal's own configuration, then reads one line of JSON from its stdin
(`CheckRequest`: what the stack and the run spec ask of the account) and prints one line of JSON
(`Account`).
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeVar, cast

from modalrun.errors import AuthenticationError, ConnectionLostError, ModalrunError
from modalrun.modal_api.client import Connection, require_server, require_whole_token
from modalrun.modal_api.errors import translated
from modalrun.plan.image_recipe import Named
from modalrun.plan.model import Plan
from modalrun.spec.run_spec import Target
from modalrun.util.check import Finding
from modalrun.util.reachability import ask

CONNECT_SECONDS = 2.0

ANSWER_SECONDS = 4.0
"""How long Modal may take to accept a connection and its token."""

T = TypeVar("T")


@dataclass(frozen=True)
class AccountNeeds:
    """What a plan uses of a Modal account, by name.

    Attributes:
        environment: The Modal environment; None for the profile's.
        workspace: The workspace that the token must belong to, and where that is set.
        secrets: Named secrets.
        volumes: Named volumes.
        images: Published images.
    """

    environment: str | None = None
    workspace: tuple[str, str] | None = None
    secrets: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    images: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: Plan) -> AccountNeeds:
        """Collect the names in a plan, each once."""
        origin = plan.origins["workspace"]
        bases = [recipe.base for recipe in plan.images.values()]
        return cls(
            plan.settings.modal_environment,
            (origin.value, origin.source) if origin.value else None,
            tuple(dict.fromkeys(name for one in plan.sandboxes for name in one.secrets)),
            tuple(dict.fromkeys(name for one in plan.sandboxes for name in one.volumes)),
            tuple(dict.fromkeys(b.name for b in bases if isinstance(b, Named) and not b.is_id)),
        )


def check_names(connection: Connection, needs: AccountNeeds) -> None:
    """Check that an environment, and secrets and volumes in it, exist.

    The local Modal server creates environments and volumes when they are named.

    Raises:
        NotFoundError: One of them does not exist.
        AuthenticationError, ConnectionLostError: Modal refuses the token or can't be reached.
    """
    import modal

    client, local = connection.client, connection.target == "local"
    where = needs.environment
    with translated():
        if where:
            modal.Environment.from_name(where, create_if_missing=local, client=client).hydrate()
        for name in needs.secrets:
            modal.Secret.from_name(name, environment_name=where, client=client).hydrate()
        for name in () if local else needs.volumes:
            modal.Volume.from_name(name, environment_name=where, client=client).hydrate()


def check_workspace(connection: Connection, needs: AccountNeeds) -> None:
    """Check that the token belongs to the workspace. The local Modal server has only one.

    Raises:
        AuthenticationError: It belongs to another one.
    """
    if needs.workspace is None or connection.target == "local":
        return
    expected, source = needs.workspace
    found = workspace(connection)
    if found is not None and found != expected:
        raise AuthenticationError(
            f"The Modal token belongs to the workspace '{found}', but 'workspace' is"
            f" '{expected}' ({source}).",
            effect="Nothing was created.",
            hint="Use a token of that workspace ('modal profile list' shows yours).",
        )


def workspace(connection: Connection) -> str | None:
    """Return the name of the token's workspace; None if it has none."""
    import modal

    with translated():
        found = modal.Workspace.from_context(client=connection.client)
        found.hydrate()
        return str(found.name) if found.name else None


@dataclass(frozen=True)
class CheckRequest:
    """What is to be checked of an account.

    Attributes:
        credentials: The Modal token of the stack's orchestrator, where it has one.
        environment: The environment that the run spec names.
        workspace: The workspace that the token has to belong to, and where that is written.
        secrets: Names of secrets.
        volumes: Names of volumes.
        images: Names of published images.
    """

    credentials: tuple[str, str] | None = field(default=None, repr=False)
    environment: str | None = None
    workspace: tuple[str, str] | None = None
    secrets: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    images: tuple[str, ...] = ()

    def to_line(self) -> str:
        """The order as one line; secret where it holds a token."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> CheckRequest:
        """The order that `to_line` has made."""
        values = json.loads(line)
        pairs = {key: values[key] and tuple(values[key]) for key in ("credentials", "workspace")}
        lists = {key: tuple(values[key]) for key in ("secrets", "volumes", "images")}
        return cls(environment=values["environment"], **pairs, **lists)


@dataclass(frozen=True)
class Account:
    """What was found.

    Attributes:
        finding: Of the check "modal_account" or "local_server".
        ahead: Seconds that this machine's clock is ahead of Modal's; None where it doesn't say.
    """

    finding: Finding
    ahead: float | None

    @classmethod
    def from_line(cls, line: str) -> Account:
        """What the process has printed."""
        values = json.loads(line)
        return cls(Finding(**values["finding"]), values["ahead"])


CheckName = Literal["modal_account", "local_server"]


def examine(target: Target, receive: Callable[[], CheckRequest]) -> Account:
    """Connect, then check what is asked for.

    Args:
        target: The cloud, or the local Modal server, which is started if need be.
        receive: Waits for the order; called when the SDK is imported and has connected.
    """
    check: CheckName = "modal_account" if target == "modal" else "local_server"
    clock = _Clock()
    connected: Connection | ModalrunError
    try:
        connected = _connect(target, None, clock)
    except ModalrunError as error:
        connected = error
    order = receive()
    try:
        if order.credentials is not None:
            connected = _connect(target, order.credentials, clock)
        if isinstance(connected, ModalrunError):
            raise connected
        found = Finding(check, "ok", _what_is_there(connected, order))
    except Exception as error:
        found = Finding.of_error(check, error)
    return Account(found, clock.ahead())


def _connect(target: Target, credentials: tuple[str, str] | None, clock: _Clock) -> Connection:
    from modal.config import config

    if target == "modal":
        if credentials is None:
            require_whole_token(config.get("token_id"), config.get("token_secret"))
        url = str(config["server_url"]).split(",", maxsplit=1)[0]
        require_server(url, CONNECT_SECONDS)
        clock.start(url)
        return _answering(url, lambda: Connection(target, credentials=credentials))
    return Connection(target, credentials=credentials)


def _answering(url: str, connect: Callable[[], T]) -> T:
    """What `connect` makes, if the server answers in time: the SDK alone tries for 15 s."""
    # The thread is left to itself: the process ends with the answer.
    future = ThreadPoolExecutor(1).submit(connect)
    try:
        return future.result(ANSWER_SECONDS)
    except FutureTimeoutError:
        raise ConnectionLostError(
            f"Modal takes connections at {url}, but does not answer within {ANSWER_SECONDS:g} s.",
            hint="Try again; https://status.modal.com says how Modal is.",
        ) from None


def _what_is_there(connection: Connection, order: CheckRequest) -> str:
    import modal
    from modal.config import config

    if connection.target == "local":
        # A named environment would come into being by being named, so nothing is looked for in it.
        check_names(connection, AccountNeeds(secrets=() if order.environment else order.secrets))
        return "the Modal SDK connects to it"
    environment = order.environment or config.get("environment") or None
    needs = AccountNeeds(environment, order.workspace, order.secrets, order.volumes, order.images)
    check_workspace(connection, needs)
    check_names(connection, needs)
    with translated():
        for name in order.images:
            within = None if "/" in name else environment
            modal.Image.from_name(name, environment_name=within, client=connection.client).hydrate()
    where = f"environment '{environment}'" if environment else "its default environment"
    found = f"workspace '{workspace(connection) or 'without a name'}', {where}"
    named = [*order.secrets, *order.volumes, *order.images]
    return f"{found}, with {', '.join(dict.fromkeys(named))}" if named else found


class _Clock:
    """Asks a server for its time, beside everything else."""

    def __init__(self) -> None:
        self._ahead: float | None = None
        self._thread: threading.Thread | None = None

    def start(self, url: str) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._ask, args=[url], daemon=True)
            self._thread.start()

    def _ask(self, url: str) -> None:
        try:
            self._ahead = ask(url, method="HEAD", seconds=CONNECT_SECONDS).ahead
        except (OSError, ValueError):
            # A gRPC server need not answer plain HTTP.
            return

    def ahead(self) -> float | None:
        if self._thread is not None:
            self._thread.join(CONNECT_SECONDS)
        return self._ahead


def main() -> None:
    """See the module."""
    # What the SDK prints must not mix with the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    found = examine(cast(Target, sys.argv[1]), lambda: CheckRequest.from_line(sys.stdin.readline()))
    values = {"finding": asdict(found.finding), "ahead": found.ahead}
    answer.write(json.dumps(values) + "\n")
    answer.flush()
    # The SDK's own thread has nothing more to do.
    os._exit(0)


if __name__ == "__main__":
    main()
