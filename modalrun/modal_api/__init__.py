"""The one package that imports `modal`. Written against the Modal SDK 1.6.4.

Importing this module is cheap; the SDK (0.7 s) is imported by `connect`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from modalrun.errors import (
    AuthenticationError,
    CapacityError,
    ConnectionLostError,
    NotFoundError,
    UnknownOutcomeError,
)
from modalrun.localmodal import launcher
from modalrun.modal_api import checks, images, pieces, streams
from modalrun.modal_api.raw import Source
from modalrun.modal_api.streams import RECONNECT_SECONDS
from modalrun.modal_api.translate import is_rate_limit, translated
from modalrun.outcome import EndKind
from modalrun.plan import Plan, SandboxSpec
from modalrun.recipe import ImageRecipe, RegistryCredentials
from modalrun.resources import limited
from modalrun.spec import Target

if TYPE_CHECKING:
    import modal

T = TypeVar("T")


@dataclass(frozen=True)
class SandboxEnd:
    """How a sandbox ended.

    Attributes:
        kind: What it means for the run.
        exit_code: The code of its first process, Modal's 124 (timeout) or 137 (terminated).
    """

    kind: EndKind
    exit_code: int


class Connection:
    """A connection to Modal's cloud or to the local Modal server."""

    def __init__(self, target: Target, *, credentials: tuple[str, str] | None = None) -> None:
        """Connect and authenticate.

        Args:
            target: Where to connect to. The local Modal server is started if need be.
            credentials: A Modal token's id and secret, instead of Modal's own configuration.

        Raises:
            AuthenticationError: There is no token, or it is not accepted.
            UsageError: Modal's configuration holds half a token.
            ConnectionLostError: The server can't be reached.
        """
        self.target = target
        self._credentials = credentials
        self._client: modal.Client
        self.reconnect()

    @property
    def client(self) -> modal.Client:
        """The SDK's client, for calls that this class doesn't make itself."""
        return self._client

    def reconnect(self) -> None:
        """Connect anew, to a new local Modal server if the old one is gone.

        Raises:
            AuthenticationError, ConnectionLostError: As for the constructor.
        """
        if self.target == "local":
            # The SDK reads these once, when it is imported or a client is made.
            os.environ.update(launcher.ensure_running().environ())
        from modal.config import config

        if self.target == "modal":
            if self._credentials is None:
                checks.require_whole_token(config.get("token_id"), config.get("token_secret"))
            checks.require_server(str(config["server_url"]))
        self._client = self.new_client()
        with translated():
            # The first call that proves the token, before anything is created with it.
            self._client.hello()

    def new_client(self) -> modal.Client:
        """One more network connection to the same server.

        Raises:
            AuthenticationError, ConnectionLostError: As for the constructor.
        """
        import modal
        from modal.config import config

        pair = self._credentials or (config.get("token_id"), config.get("token_secret"))
        if self.target == "local":
            pair = (os.environ["MODAL_TOKEN_ID"], os.environ["MODAL_TOKEN_SECRET"])
        with translated():
            # Not `from_env`: that gives one and the same client each time.
            return modal.Client.from_credentials(*pair)

    def check_names(self, plan: Plan) -> None:
        """Check that the environment, secrets and volumes that a plan names exist.

        The local Modal server makes environments and volumes as they are named.

        Raises:
            NotFoundError: One of them doesn't.
        """
        checks.names(
            self._client,
            environment=plan.environment,
            secrets=[name for one in plan.sandboxes for name in one.secrets],
            volumes=[name for one in plan.sandboxes for name in one.volumes],
            make=self.target == "local",
        )

    def check_workspace(self, expected: str, source: str) -> None:
        """Check that the token belongs to a workspace. The local Modal server has only one.

        Args:
            expected: The workspace's name.
            source: Where that was written, for the message.

        Raises:
            AuthenticationError: It belongs to another one.
        """
        if self.target == "local":
            return
        found = self.workspace()
        if found is not None and found != expected:
            raise AuthenticationError(
                f"The Modal token belongs to the workspace '{found}', but 'workspace' is"
                f" '{expected}' ({source}). Nothing was created.",
                hint="Use a token of that workspace ('modal profile list' shows yours).",
            )

    def workspace(self) -> str | None:
        """The name of the workspace that the token belongs to, where Modal says it."""
        import modal

        with translated():
            workspace = modal.Workspace.from_context(client=self._client)
            workspace.hydrate()
            return str(workspace.name) if workspace.name else None

    def rates(self) -> dict[str, Decimal] | None:
        """The account's own prices; None where Modal doesn't give them."""
        import modal

        try:
            rates = modal.Workspace.from_context(client=self._client).billing.rates()
            return dict(rates.items())
        except Exception:
            # A price list is not worth failing for: UNIMPLEMENTED on the local Modal server,
            # PERMISSION_DENIED for some members of a workspace.
            return None

    def create_run_sandbox(
        self,
        plan: Plan,
        spec: SandboxSpec,
        secrets: Mapping[str, str],
        source: Path,
        *,
        say: Callable[[str], None] = lambda _: None,
        registry: RegistryCredentials | None = None,
        order: Path | None = None,
    ) -> RunningSandbox:
        """Create the run sandbox, or find it if an earlier try has created it.

        Where Modal has none of the preferred GPU, the next one of the list is asked for.

        Args:
            plan: For the app and environment it belongs to.
            spec: The sandbox, with its name.
            secrets: Environment variables that travel as a Modal secret.
            source: The folder whose files stand at `CODE_FOLDER` in the sandbox.
            registry: For an image in a private registry.
            order: The file with the driver's order, of a `per_step` run.
            say: Is told when another GPU is asked for.

        Raises:
            UsageError: Modal refuses an argument.
            AuthenticationError, NotFoundError, CapacityError, RunFailedError: The token, the
                environment, a secret or volume, capacity, or the image build; nothing was created.
            UnknownOutcomeError: Modal's answer was lost, and so was the way to ask again.
        """
        app = self._app(plan)
        builder = images.Builder(self._client, app, plan.environment, registry)
        image = images.with_files(
            builder.build(spec.image, source),
            source,
            package=self.target == "modal",
            order=order,
        )
        arguments = {**self._arguments(plan, spec, secrets), "image": image}

        def create(gpu: str | None, *others: str) -> RunningSandbox:
            try:
                sandbox = self._create_or_find(app, plan, spec, {**arguments, "gpu": gpu})
            except CapacityError as error:
                if not others or is_rate_limit(error):
                    raise
                say(f"Modal has no {gpu} now; asking for {others[0]} instead")
                return create(*others)
            return RunningSandbox(self, sandbox, app_id=str(app.app_id), gpu=gpu)

        return create(spec.resources.gpu, *spec.resources.other_gpus)

    def build_images(
        self, plan: Plan, source: Path, registry: RegistryCredentials | None = None
    ) -> dict[ImageRecipe, str]:
        """Have the images of all sandboxes built side by side; returns Modal's ids of them.

        Raises:
            ModalrunError: As for `create_run_sandbox`.
        """
        builder = images.Builder(self._client, self._app(plan), plan.environment, registry)
        return builder.build_all([sandbox.image for sandbox in plan.sandboxes], source)

    def driver_environment(self) -> dict[str, str]:
        """What the driver of a `per_step` run connects with. Secret: never shown.

        Raises:
            AuthenticationError: There is no token that could be passed on.
        """
        from modal.config import config

        token = self._credentials or (config.get("token_id"), config.get("token_secret"))
        if not all(token):
            raise AuthenticationError(
                "The driver of a 'per_step' run needs a Modal token of its own to create sandboxes"
                " with, and this machine is logged in without one.",
                hint="Set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET ('modal token new' makes them), or"
                " use 'mode: pipeline'.",
            )
        names = ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_SERVER_URL")
        values = (*token, config["server_url"])
        if self.target == "local":
            return {name: os.environ[name] for name in names}
        return {name: str(value) for name, value in zip(names, values, strict=True)}

    def _app(self, plan: Plan) -> modal.App:
        import modal

        with translated():
            return modal.App.lookup(
                plan.app_name,
                create_if_missing=True,
                environment_name=plan.environment,
                client=self._client,
            )

    def _arguments(
        self, plan: Plan, spec: SandboxSpec, secrets: Mapping[str, str]
    ) -> dict[str, Any]:
        """The keyword arguments of `modal.Sandbox.create`, all but app, image and GPU."""
        import modal

        env: dict[str, str | None] = dict(spec.env)
        if self.target == "modal":
            # A driver's image is named by its id, and doesn't say what it sets.
            env.setdefault("PYTHONPATH", images.python_path(spec.image))
        asked = spec.resources
        cpu, memory = limited(asked.cpu, asked.cpu_limit, asked.memory, asked.memory_limit)
        named = [
            modal.Secret.from_name(name, environment_name=plan.environment, client=self._client)
            for name in spec.secrets
        ]
        volumes = {
            path: modal.Volume.from_name(
                name,
                environment_name=plan.environment,
                create_if_missing=self.target == "local",
                client=self._client,
            )
            for name, path in spec.volumes.items()
        }
        return {
            "name": spec.name,
            "tags": dict(spec.tags),
            "env": env,
            # Ours last: a named secret must not replace what the run needs to reach ZenML.
            "secrets": [*named, modal.Secret.from_dict(dict(secrets))],
            "volumes": volumes,
            "timeout": spec.timeout,
            "workdir": spec.workdir,
            "cpu": cpu,
            "memory": memory,
            "cloud": spec.cloud,
            "region": list(spec.regions) or None,
            "client": self._client,
        }

    def _create_or_find(
        self, app: modal.App, plan: Plan, spec: SandboxSpec, arguments: dict[str, Any]
    ) -> modal.Sandbox:
        import modal

        try:
            with translated():
                return modal.Sandbox.create(*spec.command, app=app, **arguments)
        except modal.exception.AlreadyExistsError:
            return self._find(plan, spec)
        except ConnectionLostError as error:
            try:
                return self._find(plan, spec)
            except NotFoundError:
                raise error from None
            except Exception as second:
                raise UnknownOutcomeError(
                    "The connection to Modal was lost while the run sandbox was being created;"
                    " whether it runs is unknown.",
                    hint=f"Look for the sandbox '{spec.name}' in the app '{plan.app_name}'"
                    " before you submit again.",
                ) from second

    def find_running(self, plan: Plan, spec: SandboxSpec) -> str | None:
        """Modal's id of a running sandbox with the name of a spec; None where there is none.

        Raises:
            AuthenticationError, ConnectionLostError: Modal refuses, or can't be asked.
        """
        import modal

        try:
            with translated():
                found = modal.Sandbox.from_name(
                    plan.app_name,
                    str(spec.name),
                    environment_name=plan.environment,
                    client=self._client,
                )
        except NotFoundError:
            return None
        return str(found.object_id)

    def discard(self, plan: Plan, spec: SandboxSpec) -> None:
        """End a sandbox that may or may not have been created.

        Raises:
            ModalrunError: It was not, or Modal can't be asked.
        """
        with translated():
            self._find(plan, spec).terminate()

    def attach(self, sandbox_id: str) -> modal.Sandbox:
        """A fresh handle on a sandbox, running or finished."""
        import modal

        with translated():
            return modal.Sandbox.from_id(sandbox_id, client=self._client)

    def _find(self, plan: Plan, spec: SandboxSpec) -> modal.Sandbox:
        import modal

        def find(*, include_terminated: bool) -> modal.Sandbox:
            with translated():
                return modal.Sandbox.from_name(
                    plan.app_name,
                    str(spec.name),
                    environment_name=plan.environment,
                    include_terminated=include_terminated,
                    client=self._client,
                )

        try:
            # Only the second backend can also find a sandbox that has ended already.
            return find(include_terminated=True)
        except NotFoundError:
            return find(include_terminated=False)


class RunningSandbox:
    """A sandbox that was created, to be watched.

    Attributes:
        id: Modal's id of the sandbox.
        app_id: Modal's id of its app.
        gpu: The GPU that it was asked for in the end.
    """

    def __init__(
        self, connection: Connection, sandbox: modal.Sandbox, *, app_id: str, gpu: str | None = None
    ) -> None:
        self.id: str = sandbox.object_id
        self.app_id = app_id
        self.gpu = gpu
        self._connection = connection
        self._sandbox = sandbox

    @property
    def url(self) -> str | None:
        """The sandbox's page on Modal's dashboard; None on the local Modal server."""
        return f"https://modal.com/id/{self.id}" if self._connection.target == "modal" else None

    def watch(self, on_output: Callable[[Source, str], None]) -> SandboxEnd:
        """Pass on the output as it comes, until the sandbox has ended and all of it has arrived.

        A lost connection is tried again for `RECONNECT_SECONDS`; output goes on where it stopped.

        Args:
            on_output: Called with pieces of text, from one thread.

        Raises:
            ConnectionLostError: The connection is lost for good; the sandbox may still run.
        """
        output = streams.Streams(self._connection)
        output.add(self.id)

        def pass_on() -> None:
            for batch in output:
                for item in batch:
                    if isinstance(item, pieces.Piece) and item.text:
                        on_output(cast(Source, item.source), item.text)

        reader = threading.Thread(target=pass_on, daemon=True)
        reader.start()
        try:
            end = self.wait()
            reader.join()
        finally:
            output.close()
        return end

    def wait(self) -> SandboxEnd:
        """Wait until the sandbox has ended, through lost connections as `watch` does.

        Raises:
            ConnectionLostError: The connection is lost for good; the sandbox may still run.
        """
        return self._retrying(self._wait)

    def terminate(self) -> None:
        """End the sandbox now; nothing happens if it has ended."""
        with translated():
            self._sandbox.terminate()

    def _wait(self, sandbox: modal.Sandbox) -> SandboxEnd:
        import modal

        try:
            with translated():
                sandbox.wait(raise_on_termination=False)
        except modal.exception.SandboxTimeoutError:
            return SandboxEnd("timed_out", 124)
        code = sandbox.returncode
        # The SDK has waited for the end, so there is a code.
        assert code is not None
        return SandboxEnd(end_kind(code), code)

    def _retrying(self, action: Callable[[modal.Sandbox], T]) -> T:
        """Call `action` with a handle, and again with a fresh one after a lost connection."""
        sandbox = self._sandbox
        failing_since: float | None = None
        pause = 0.2
        while True:
            began = time.monotonic()
            try:
                return action(sandbox)
            except ConnectionLostError:
                now = time.monotonic()
                if failing_since is None or now - began > RECONNECT_SECONDS:
                    failing_since, pause = now, 0.2
                if now - failing_since > RECONNECT_SECONDS:
                    raise
            time.sleep(pause)
            pause = min(5.0, pause * 2)
            with contextlib.suppress(ConnectionLostError):
                sandbox = self._fresh_handle(sandbox)

    def _fresh_handle(self, stale: modal.Sandbox) -> modal.Sandbox:
        if self._sandbox is stale:
            self._connection.reconnect()
        self._sandbox = self._connection.attach(self.id)
        return self._sandbox


def end_kind(exit_code: int) -> EndKind:
    """What the exit code of a run sandbox means; our supervisor's are Modal's and the shell's."""
    if exit_code == 0:
        return "completed"
    if exit_code == 124:
        return "timed_out"
    if exit_code in {130, 137, 143}:
        return "stopped"
    return "failed"
