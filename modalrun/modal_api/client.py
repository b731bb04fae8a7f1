"""Connect to Modal's cloud or to the local Modal server."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from modalrun.errors import AuthenticationError, ConnectionLostError, NotFoundError
from modalrun.localmodal import launcher
from modalrun.modal_api.configuration import require_readable_configuration
from modalrun.modal_api.errors import LOG_IN, translated
from modalrun.run.run_plan import Target
from modalrun.run.tags import TAG_RUN
from modalrun.util import timeline
from modalrun.util.reachability import CONNECT_SECONDS, connection_problem

if TYPE_CHECKING:
    import modal


def load_sdk() -> None:
    """Import the SDK.

    Raises:
        UsageError: Modal's configuration can't be read; the SDK then can't be imported.
    """
    require_readable_configuration()
    if "modal" not in sys.modules:
        with timeline.phase("import modal"):
            import modal  # noqa: F401


class ForeignSandboxError(NotFoundError):
    """A sandbox that the output or the record of a run names does not belong to the run."""


class Connection:
    """An authenticated connection to Modal, renewed in place when it breaks.

    Attributes:
        target: Modal's cloud or the local Modal server.
        client: The SDK's client; `reconnect` replaces it.
        mounted: Images whose files are mounted, by their id and the source tree (`mounts.mount`).
        builders: The image builder versions of environments, by name.
        mounts_package: Whether sandboxes need modalrun's source, because their Python is not ours.
    """

    client: modal.Client
    mounted: dict[tuple[str, Path], modal.Image]
    builders: dict[str, str]
    _apps: dict[tuple[str, str | None], modal.App]

    def __init__(self, target: Target, *, credentials: tuple[str, str] | None = None) -> None:
        """Connect and authenticate.

        Args:
            target: Where to connect to. The local Modal server is started if it does not run.
            credentials: The id and secret of a Modal token, instead of Modal's own configuration.
                The local Modal server has a token of its own.

        Raises:
            AuthenticationError: There is no token, or half of one, or Modal refuses it.
            ConnectionLostError: The server can't be reached.
        """
        self.target = target
        self.mounts_package = target == "modal"
        self._credentials = credentials if target == "modal" else None
        self.reconnect()

    def reconnect(self) -> None:
        """Connect again, to a new local Modal server if the old one is gone; as `__init__`."""
        if self.target == "local":
            server = launcher.ensure_running()
            # The SDK reads these once, when it is imported or a client is made.
            os.environ.update(server.environ())
            self.mounts_package = server.isolated_python
        load_sdk()
        from modal.config import config

        if self.target == "modal":
            require_whole_token(*self._token())
            require_server(str(config["server_url"]))
        with timeline.phase("connect to Modal"):
            try:
                self.client = self.new_client()
                self.mounted, self.builders, self._apps = {}, {}, {}
                with translated():
                    # The first call proves the token before anything is created with it.
                    self.client.hello()
            except AuthenticationError as error:
                raise refused_token(error, of_stack=self._credentials is not None) from error

    def new_client(self) -> modal.Client:
        """Open one more network connection to the same server; raise as `translated`."""
        import modal

        with translated():
            # `from_env` would return the same client each time.
            return modal.Client.from_credentials(*self._token())

    def app(self, name: str, environment: str | None, *, create: bool = True) -> modal.App:
        """Look up an app once, and create it if there is none of that name.

        Raises:
            NotFoundError: There is none, and `create` is not set.
            ModalrunError: As `translated`.
        """
        import modal

        if (name, environment) not in self._apps:
            with translated(), timeline.phase("look up the app"):
                self._apps[name, environment] = modal.App.lookup(
                    name, create_if_missing=create, environment_name=environment, client=self.client
                )
        return self._apps[name, environment]

    def attach(self, sandbox_id: str, run_id: str) -> modal.Sandbox:
        """Return a fresh handle on a sandbox of a run, running or finished; raise as `translated`.

        Raises:
            ForeignSandboxError: It is not this run's.
            NotFoundError: There is no such sandbox.
        """
        import modal

        with translated():
            sandbox = modal.Sandbox.from_id(sandbox_id, client=self.client)
            require_owner(sandbox_id, sandbox.get_tags(), run_id)
            return sandbox

    def write_input(self, sandbox_id: str, run_id: str, text: str) -> None:
        """Write to the standard input of a run's sandbox, by a fresh handle; as `attach`.

        Raises:
            ValueError: Its input is closed (`modal/io_streams.py`, 1.6.4).
        """
        sandbox = self.attach(sandbox_id, run_id)
        with translated():
            sandbox.stdin.write(text)
            sandbox.stdin.drain()

    def shell_command(self, *arguments: str) -> str:
        """Return commands of Modal's CLI for a shell, which reach the same server."""
        setup = 'eval "$(modalrun local env)"; ' if self.target == "local" else ""
        return setup + "; ".join(f"modal {one}" for one in arguments)

    def driver_environment(self, environment: str | None) -> dict[str, str]:
        """Return the variables that the driver of a `per_step` run uses Modal with. Never shown.

        Args:
            environment: The Modal environment of the run.

        Raises:
            AuthenticationError: There is no token to pass on.
        """
        from modal.config import config

        token_id, token_secret = self._token()
        if not token_id or not token_secret:
            raise AuthenticationError(
                "The driver of a 'per_step' run needs a Modal token of its own to create sandboxes"
                " with, and this machine is logged in without one.",
                hint="Set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET ('modal token new' makes them), or"
                " use 'mode: pipeline'.",
            )
        return {
            "MODAL_TOKEN_ID": token_id,
            "MODAL_TOKEN_SECRET": token_secret,
            "MODAL_SERVER_URL": str(config["server_url"]),
            **({"MODAL_ENVIRONMENT": environment} if environment else {}),
            # The SDK refuses files that are changed while it mounts them (`modal/mount.py:608`,
            # 1.6.4). In a sandbox nobody edits them, and its clock is not that of their times.
            "MODAL_BUILD_VALIDATION": "ignore",
        }

    def _token(self) -> tuple[str, str]:
        from modal.config import config

        return self._credentials or (config.get("token_id"), config.get("token_secret"))


def require_owner(sandbox_id: str, tags: Mapping[str, str], run_id: str) -> None:
    """Check by the tags at Modal that a sandbox which output or metadata names is the run's.

    Raises:
        ForeignSandboxError: It is not.
    """
    if tags.get(TAG_RUN) != run_id:
        raise ForeignSandboxError(
            f"The sandbox {sandbox_id} does not belong to the run {run_id}, whose output or record"
            " in ZenML names it."
        )


def refused_token(error: AuthenticationError, *, of_stack: bool) -> AuthenticationError:
    """Return the error about a refused token, which says where that is if not in the profile.

    Args:
        of_stack: Whether the token is that of the stack's orchestrator.
    """
    if error.hint != LOG_IN or not (of_stack or os.environ.get("MODAL_TOKEN_ID")):
        return error
    hint = (
        "MODAL_TOKEN_ID and MODAL_TOKEN_SECRET have it, and win over 'modal setup': set those of"
        " another token, or remove both."
    )
    if of_stack:
        hint = (
            "It is that of the stack's orchestrator, which wins over 'modal setup' and over"
            " MODAL_TOKEN_ID: change its 'token_id' and 'token_secret' ('zenml orchestrator"
            " update'), or the ZenML secret that they name ('zenml secret update')."
        )
    return AuthenticationError(error.problem, effect=error.effect, hint=hint)


def require_whole_token(token_id: str | None, token_secret: str | None) -> None:
    """Raise an AuthenticationError for no token and for half of one."""
    if not token_id and not token_secret:
        raise AuthenticationError(
            "There is no Modal token.",
            effect="Nothing was created.",
            hint="Run 'modal setup', or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET;"
            " '--target local' runs without Modal.",
        )
    if not token_id or not token_secret:
        given, missing = ("id", "secret") if token_id else ("secret", "id")
        raise AuthenticationError(
            f"Modal's configuration holds the {given} of a token without its {missing}.",
            effect="Nothing was created.",
            hint="Set both MODAL_TOKEN_ID and MODAL_TOKEN_SECRET; or neither, and run 'modal"
            " setup'.",
        )


def require_server(url: str, seconds: float = CONNECT_SECONDS) -> None:
    """Check the server's address before anything is sent to it.

    Raises:
        AuthenticationError: It is that of a local Modal server that has ended.
        ConnectionLostError: Nothing answers in time.
    """
    if launcher.has_ended_variables():
        raise AuthenticationError(
            "The Modal variables of this shell are those of a local Modal server that has ended.",
            effect="Nothing was sent to its address, which may be another program's by now.",
            hint="Set them again with 'eval \"$(modalrun local env)\"', or remove them with"
            " 'eval \"$(modalrun local env --unset)\"'.",
        )
    # Others follow, which the SDK tries when this one fails.
    url = url.split(",", maxsplit=1)[0]
    problem = connection_problem(url, seconds)
    if problem is not None:
        raise ConnectionLostError(
            f"Modal can't be reached at {url}: {problem}.",
            effect="Nothing was created on Modal.",
            hint="Check the network. '--target local' runs without Modal.",
        ) from problem
