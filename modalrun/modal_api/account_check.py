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
from typing import Any, Literal, TypeVar, cast

from modalrun.errors import ConnectionLostError, ModalrunError
from modalrun.run.run_plan import Target
from modalrun.util.check import Finding
from modalrun.util.reachability import ask

CONNECT_SECONDS = 2.0

ANSWER_SECONDS = 4.0
"""How long Modal may take to accept a connection and its token."""

T = TypeVar("T")


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
    connected: Any
    try:
        connected = _connect(target, None, clock)
    except ModalrunError as error:
        connected = error
    order = receive()
    try:
        if order.credentials is not None:
            connected = _connect(target, order.credentials, clock)
        elif isinstance(connected, ModalrunError):
            raise connected
        found = Finding(check, "ok", _what_is_there(target, connected, order))
    except Exception as error:
        found = Finding.of_error(check, error)
    return Account(found, clock.ahead())


def _connect(target: Target, credentials: tuple[str, str] | None, clock: _Clock) -> Any:
    from modal.config import config

    from modalrun.modal_api import Connection, checks

    if target == "modal":
        if credentials is None:
            checks.require_whole_token(config.get("token_id"), config.get("token_secret"))
        url = str(config["server_url"]).split(",", maxsplit=1)[0]
        checks.require_server(url, CONNECT_SECONDS)
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


def _what_is_there(target: Target, connection: Any, order: CheckRequest) -> str:
    import modal
    from modal.config import config

    from modalrun.modal_api import checks
    from modalrun.modal_api.errors import translated

    client = connection.client
    if target == "local":
        # A named environment would come into being by being named, so nothing is looked for in it.
        secrets = () if order.environment else order.secrets
        checks.names(client, environment=None, secrets=secrets, volumes=(), make=True)
        return "the Modal SDK connects to it"
    if order.workspace is not None:
        connection.check_workspace(*order.workspace)
    environment = order.environment or config.get("environment") or None
    checks.names(
        client,
        environment=environment,
        secrets=order.secrets,
        volumes=order.volumes,
        make=False,
    )
    with translated():
        for name in order.images:
            within = None if "/" in name else environment
            modal.Image.from_name(name, environment_name=within, client=client).hydrate()
    where = f"environment '{environment}'" if environment else "its default environment"
    found = f"workspace '{connection.workspace() or 'without a name'}', {where}"
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
