"""Check a Modal account: its token, workspace, environment, secrets, volumes and images."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from modalrun import DOCS
from modalrun.errors import AuthenticationError, ConnectionLostError, NotFoundError
from modalrun.modal_api import image_builder, images
from modalrun.modal_api.client import Connection, require_server, require_whole_token
from modalrun.modal_api.configuration import configured_environment, local_server_note
from modalrun.modal_api.errors import translated
from modalrun.modal_api.sdk_internals import look_up_image
from modalrun.plan.image_recipe import Named, Slim
from modalrun.run.run_plan import Target
from modalrun.util import background, timeline
from modalrun.util.reachability import ask

if TYPE_CHECKING:
    from modalrun.plan.model import Plan

CONNECT_SECONDS, ANSWER_SECONDS = 2.0, 4.0
"""How long `check_account` waits for Modal's server, and until that accepts the token. The SDK
alone tries for 15 s."""


@dataclass(frozen=True)
class AccountNeeds:
    """What a plan uses of a Modal account, by name.

    Attributes:
        environment: The Modal environment; None for the profile's.
        workspace: The workspace that the token must belong to, and where that is set.
        secrets, volumes, images: The named secrets and volumes, and the published images by
            name or id.
        pythons: The Python versions of the images that Modal builds on its slim Debian.
        credentials: A Modal token, instead of Modal's own configuration. Never printed.
    """

    environment: str | None = None
    workspace: tuple[str, str] | None = None
    secrets: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    pythons: tuple[str, ...] = ()
    credentials: tuple[str, str] | None = field(default=None, repr=False)

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
            tuple(dict.fromkeys(b.name for b in bases if isinstance(b, Named))),
            tuple(sorted({base.python_version for base in bases if isinstance(base, Slim)})),
        )


def check_names(connection: Connection, needs: AccountNeeds) -> None:
    """Check that secrets, volumes and published images exist in an environment, which exists.

    Raises:
        NotFoundError: Some of them do not exist.
    """
    import modal

    where, client = needs.environment, connection.client
    within = f" --env {where}" if where else ""

    def named(kind: Any, name: str) -> Any:
        return kind.from_name(name, environment_name=where, client=client).hydrate.aio()

    def published(name: str) -> Any:
        return look_up_image(images.published_image(connection, name, where))

    asked: list[tuple[Any, str]] = [
        *(
            (named(modal.Secret, name), f"secret create {name} NAME=value{within}")
            for name in needs.secrets
        ),
        *((named(modal.Volume, name), f"volume create {name}{within}") for name in needs.volumes),
        *((published(name), "") for name in needs.images),
    ]
    if not asked:
        return

    async def problem(answer: Any) -> str | None:
        try:
            with translated():
                await answer
        except NotFoundError as error:
            return error.problem
        return None

    async def problems() -> list[str | None]:
        return await asyncio.gather(*(problem(answer) for answer, _ in asked))

    with timeline.phase("look up secrets, volumes and images"):
        found = asyncio.run(problems())
    missing = [(text, one[1]) for one, text in zip(asked, found, strict=True) if text]
    if missing:
        raise _absent(missing, connection)


@timeline.phase("look up the environment")
def environment_name(connection: Connection, name: str | None) -> str:
    """Return the name of the Modal environment that is used.

    Args:
        connection: To Modal.
        name: The one that a setting names; None for that of Modal's configuration, or else the
            default one of the workspace.

    Raises:
        NotFoundError: There is no such environment.
    """
    if name is None and (configured := configured_environment(connection.target)) is not None:
        name = configured.value
    try:
        return image_builder.look_up_environment(connection, name)
    except NotFoundError as error:
        missing = [(error.problem, f"environment create {name or 'NAME'}")]
        raise _absent(missing, connection) from error


def _absent(missing: Sequence[tuple[str, str]], connection: Connection) -> NotFoundError:
    """Return the error for what is missing: each problem, and `modal`'s command that creates it."""
    commands = [command for _, command in missing if command]
    if commands:
        what = "names, or create them" if len(missing) > 1 else "name, or create it"
        hint = f"Correct the {what}: {connection.shell_command(*commands)}"
    else:
        hint = f"Correct the name, or publish such an image ({DOCS}/images.md)."
    problems = "; ".join(problem for problem, _ in missing)
    return NotFoundError(f"{problems}.", effect="Nothing was created.", hint=hint)


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

    with translated(), timeline.phase("look up the workspace"):
        found = modal.Workspace.from_context(client=connection.client)
        found.hydrate()
        return str(found.name) if found.name else None


def check_account(
    target: Target, needs: AccountNeeds, record_clock: Callable[[float | None], None]
) -> str:
    """Connect within seconds and check everything that a plan names; create nothing.

    `record_clock` is called with the seconds that this machine's clock is ahead of Modal's.

    Returns:
        What was found, for a message.

    Raises:
        ModalrunError: The first check that failed.
    """
    local = target == "local"
    connection = Connection(target) if local else _connect_in_time(needs.credentials, record_clock)
    environment = environment_name(connection, needs.environment)
    needs = replace(needs, environment=environment)
    check_workspace(connection, needs)
    check_names(connection, needs)
    builder = image_builder.image_builder(connection, environment, needs.pythons)
    if local:
        return "the Modal SDK connects to it"
    owner = f"workspace '{workspace(connection) or 'without a name'}'"
    found = f"{owner}, environment '{environment}'"
    if builder is not None:
        found += f"; {builder.note}"
    if named := [*needs.secrets, *needs.volumes, *needs.images]:
        found += f", with {', '.join(dict.fromkeys(named))}"
    note = local_server_note(target)
    return f"{found}. {note}" if note else found


def _connect_in_time(
    credentials: tuple[str, str] | None, record_clock: Callable[[float | None], None]
) -> Connection:
    """Connect to Modal's cloud, and compare the clocks before the token can be refused."""
    from modal.config import config

    if credentials is None:
        require_whole_token(config.get("token_id"), config.get("token_secret"))
    url = str(config["server_url"]).split(",", maxsplit=1)[0]
    require_server(url, CONNECT_SECONDS)
    # A gRPC server need not answer plain HTTP.
    with contextlib.suppress(OSError, ValueError):
        record_clock(ask(url, method="HEAD", seconds=CONNECT_SECONDS).ahead)
    # The process need not stay alive while the SDK still tries.
    connected = background.begin(lambda: Connection("modal", credentials=credentials))
    try:
        return connected.result(ANSWER_SECONDS)
    except FutureTimeoutError:
        raise ConnectionLostError(
            f"Modal takes connections at {url}, but does not answer within {ANSWER_SECONDS:g} s.",
            hint="Try again; https://status.modal.com says how Modal is.",
        ) from None
