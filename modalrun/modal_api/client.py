"""A connection to Modal, and what is created, found and asked through it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalrun.errors import (
    AuthenticationError,
    CapacityError,
    ConnectionLostError,
    NotFoundError,
    UnknownOutcomeError,
)
from modalrun.localmodal import launcher
from modalrun.modal_api import checks, images
from modalrun.modal_api.errors import is_rate_limit, translated
from modalrun.modal_api.running_sandbox import RunningSandbox
from modalrun.modal_api.sandbox_arguments import SandboxArguments
from modalrun.plan.image_recipe import RegistryCredentials
from modalrun.plan.model import Plan
from modalrun.run.run_plan import RunPlan, Target
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.run.tags import TAG_AFTER

if TYPE_CHECKING:
    import modal


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

    def check_names(self, plan: RunPlan) -> None:
        """Check that the environment, secrets and volumes that a plan names exist.

        The local Modal server makes environments and volumes as they are named.

        Raises:
            NotFoundError: One of them doesn't.
        """
        checks.names(
            self._client,
            environment=plan.settings.modal_environment,
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

    def create_run_sandbox(
        self,
        plan: RunPlan,
        spec: SandboxSpec,
        secrets: Mapping[str, str],
        source: Path,
        *,
        say: Callable[[str], None] = lambda _: None,
        manifest: Path | None = None,
        earlier: str | None = None,
    ) -> RunningSandbox:
        """Create the run sandbox, or find it if an earlier try has created it.

        Where Modal has none of the preferred GPU, the next one of the list is asked for.

        Args:
            plan: For the app and environment it belongs to.
            spec: The sandbox, with its name; its image is built.
            secrets: Environment variables that travel as a Modal secret.
            source: The folder whose files stand at `CODE_FOLDER` in the sandbox.
            manifest: The file with the driver's manifest, of a `per_step` run.
            earlier: A sandbox of this name that has ended, and is not the one that is created.
            say: Is told when another GPU is asked for.

        Raises:
            UsageError: Modal refuses an argument.
            AuthenticationError, NotFoundError, CapacityError: The token, the environment, a secret
                or volume, or capacity; nothing was created.
            UnknownOutcomeError: Modal's answer was lost, and so was the way to ask again.
        """
        import modal

        app = self._app(plan)
        image = images.with_files(
            modal.Image.from_id(spec.image, client=self._client),
            source,
            package=self.target == "modal",
            manifest=manifest,
        )
        if earlier is not None:
            spec = replace(spec, tags={**spec.tags, TAG_AFTER: earlier})
        arguments = SandboxArguments(plan, secrets, self._client)

        def create(gpu: str | None, *others: str | None) -> RunningSandbox:
            try:
                sandbox = self._create_or_find(
                    app, plan, spec, {**arguments.of(spec, gpu), "image": image}, earlier
                )
            except CapacityError as error:
                if not others or is_rate_limit(error):
                    raise
                say(f"Modal has no {gpu} now; asking for {others[0]} instead")
                return create(*others)
            return RunningSandbox(self, sandbox, app_id=str(app.app_id), gpu=gpu)

        return create(*(spec.resources.gpus or (None,)))

    def build_images(
        self, plan: Plan, source: Path, registry: RegistryCredentials | None = None
    ) -> dict[str, str]:
        """Build the images of all sandboxes side by side.

        Args:
            plan: The run.
            source: The folder with the source tree.
            registry: For images in a private registry.

        Returns:
            Each key of `plan.images` -> Modal's id of the built image.

        Raises:
            RunFailedError: A build failed; the message has the image's id and the end of its log.
            ModalrunError: As for `create_run_sandbox`.
        """
        environment = plan.settings.modal_environment
        builder = images.Builder(self._client, self._app(plan), environment, registry)
        built = builder.build_all(plan.images.values(), source)
        return {key: built[recipe] for key, recipe in plan.images.items()}

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

    def _app(self, plan: RunPlan) -> modal.App:
        import modal

        with translated():
            return modal.App.lookup(
                plan.settings.app_name,
                create_if_missing=True,
                environment_name=plan.settings.modal_environment,
                client=self._client,
            )

    def _create_or_find(
        self,
        app: modal.App,
        plan: RunPlan,
        spec: SandboxSpec,
        arguments: dict[str, Any],
        earlier: str | None,
    ) -> modal.Sandbox:
        import modal

        try:
            with translated():
                return modal.Sandbox.create(
                    *spec.command, app=app, client=self._client, **arguments
                )
        except modal.exception.AlreadyExistsError:
            return self._find(plan, spec)
        except ConnectionLostError as error:
            try:
                found = self._find(plan, spec)
            except NotFoundError:
                raise error from None
            except Exception as second:
                raise UnknownOutcomeError(
                    "The connection to Modal was lost while the run sandbox was being created;"
                    " whether it runs is unknown.",
                    hint=f"Look for the sandbox '{spec.name}' in the app '{plan.settings.app_name}'"
                    " before you submit again.",
                ) from second
            if found.object_id == earlier:
                raise
            return found

    def find_running(self, plan: RunPlan, spec: SandboxSpec) -> str | None:
        """Modal's id of a running sandbox with the name of a spec; None where there is none.

        Raises:
            AuthenticationError, ConnectionLostError: Modal refuses, or can't be asked.
        """
        import modal

        try:
            with translated():
                found = modal.Sandbox.from_name(
                    plan.settings.app_name,
                    str(spec.name),
                    environment_name=plan.settings.modal_environment,
                    client=self._client,
                )
        except NotFoundError:
            return None
        return str(found.object_id)

    def find_last(self, plan: RunPlan, spec: SandboxSpec) -> str | None:
        """Modal's id of the last sandbox with the name of a spec, which may have ended.

        Raises:
            AuthenticationError, ConnectionLostError: Modal refuses, or can't be asked.
        """
        try:
            return str(self._find(plan, spec).object_id)
        except NotFoundError:
            return None

    def discard(self, plan: RunPlan, spec: SandboxSpec) -> None:
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

    def _find(self, plan: RunPlan, spec: SandboxSpec) -> modal.Sandbox:
        import modal

        def find(*, include_terminated: bool) -> modal.Sandbox:
            with translated():
                return modal.Sandbox.from_name(
                    plan.settings.app_name,
                    str(spec.name),
                    environment_name=plan.settings.modal_environment,
                    include_terminated=include_terminated,
                    client=self._client,
                )

        try:
            # Only the second backend can also find a sandbox that has ended already.
            return find(include_terminated=True)
        except NotFoundError:
            return find(include_terminated=False)
