"""The one place that imports `modal`. Written against the Modal SDK 1.6.4.

Importing this module is cheap; the SDK (0.7 s) is imported by `connect`.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlsplit

from modalrun.errors import (
    AuthenticationError,
    CapacityError,
    ConnectionLostError,
    NotFoundError,
    RunFailedError,
    UnknownOutcomeError,
    UsageError,
)
from modalrun.image import CODE_FOLDER, ImageRecipe
from modalrun.localmodal import launcher
from modalrun.outcome import EndKind
from modalrun.plan import Plan, SandboxSpec
from modalrun.spec import Target

if TYPE_CHECKING:
    import modal

T = TypeVar("T")
Source = Literal["stdout", "stderr"]

CONNECT_SECONDS = 3.0
"""The SDK itself tries an absent server for almost a minute (`modal/_utils/grpc_utils.py:428`)."""

RECONNECT_SECONDS = 60.0
"""How long a lost connection to a running sandbox is tried again before giving up."""

PACKAGE_FOLDER = "/root"
"""Where Modal puts Python source that is added to an image."""


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

    def __init__(self, target: Target) -> None:
        """Connect and authenticate.

        Args:
            target: Where to connect to. The local Modal server is started if need be.

        Raises:
            AuthenticationError: There is no token, or it is not accepted.
            ConnectionLostError: The server can't be reached.
        """
        self.target = target
        self._client: modal.Client
        self.reconnect()

    def reconnect(self) -> None:
        """Connect anew, to a new local Modal server if the old one is gone.

        Raises:
            AuthenticationError, ConnectionLostError: As for the constructor.
        """
        if self.target == "local":
            # The SDK reads these once, when it is imported or a client is made.
            os.environ.update(launcher.ensure_running().environ())
        import modal
        from modal.config import config

        with translated():
            if self.target == "local":
                self._client = modal.Client.from_credentials(
                    os.environ["MODAL_TOKEN_ID"], os.environ["MODAL_TOKEN_SECRET"]
                )
            else:
                _require_server(str(config["server_url"]))
                self._client = modal.Client.from_env()

    def create_run_sandbox(
        self, plan: Plan, spec: SandboxSpec, secrets: Mapping[str, str], source: Path
    ) -> RunningSandbox:
        """Create the run sandbox, or find it if an earlier try has created it.

        Args:
            plan: For the app and environment it belongs to.
            spec: The sandbox, with its name.
            secrets: Environment variables that travel as a Modal secret.
            source: The folder whose files stand at `CODE_FOLDER` in the sandbox.

        Raises:
            UsageError: Modal refuses an argument.
            AuthenticationError, NotFoundError, CapacityError, RunFailedError: The token, the
                environment, capacity or the image build; nothing was created.
            UnknownOutcomeError: Modal's answer was lost, and so was the way to ask again.
        """
        import modal

        with translated():
            app = modal.App.lookup(
                plan.app_name,
                create_if_missing=True,
                environment_name=plan.environment,
                client=self._client,
            )
        region = list(spec.regions) or None
        image = _image(spec.image, source, add_package=self.target == "modal")
        env: dict[str, str | None] = dict(spec.env)
        if self.target == "modal":
            env["PYTHONPATH"] = PACKAGE_FOLDER
        try:
            with translated():
                sandbox = modal.Sandbox.create(
                    *spec.command,
                    app=app,
                    name=spec.name,
                    tags=dict(spec.tags),
                    image=image,
                    env=env,
                    secrets=[modal.Secret.from_dict(dict(secrets))],
                    timeout=spec.timeout,
                    workdir=spec.workdir,
                    gpu=spec.resources.gpu,
                    cpu=spec.resources.cpu,
                    memory=spec.resources.memory,
                    cloud=spec.cloud,
                    region=region,
                    client=self._client,
                )
        except modal.exception.AlreadyExistsError:
            sandbox = self._find(plan, spec)
        except ConnectionLostError as error:
            try:
                sandbox = self._find(plan, spec)
            except NotFoundError:
                raise error from None
            except Exception as second:
                raise UnknownOutcomeError(
                    "The connection to Modal was lost while the run sandbox was being created;"
                    " whether it runs is unknown.",
                    hint=f"Look for the sandbox '{spec.name}' in the app '{plan.app_name}'"
                    " before you submit again.",
                ) from second
        return RunningSandbox(self, sandbox, app_id=str(app.app_id))

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
    """

    def __init__(self, connection: Connection, sandbox: modal.Sandbox, *, app_id: str) -> None:
        self.id: str = sandbox.object_id
        self.app_id = app_id
        self._connection = connection
        self._sandbox = sandbox
        self._lock = threading.Lock()

    @property
    def url(self) -> str | None:
        """The sandbox's page on Modal's dashboard; None on the local Modal server."""
        return f"https://modal.com/id/{self.id}" if self._connection.target == "modal" else None

    def watch(self, on_output: Callable[[Source, str], None]) -> SandboxEnd:
        """Pass on the output as it comes, until the sandbox has ended and all of it has arrived.

        A lost connection is tried again for `RECONNECT_SECONDS`; output goes on where it stopped.

        Args:
            on_output: Called with pieces of text, from one thread per stream.

        Raises:
            ConnectionLostError: The connection is lost for good; the sandbox may still run.
        """
        streams = [
            threading.Thread(target=self._stream, args=(source, on_output), daemon=True)
            for source in ("stdout", "stderr")
        ]
        for stream in streams:
            stream.start()
        end = self._retrying(self._wait)
        for stream in streams:
            stream.join(RECONNECT_SECONDS)
        return end

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

    def _stream(self, source: Source, on_output: Callable[[Source, str], None]) -> None:
        delivered = 0

        def read(sandbox: modal.Sandbox) -> None:
            nonlocal delivered
            to_skip = delivered
            with translated():
                for text in getattr(sandbox, source):
                    fresh = text[to_skip:]
                    to_skip = max(0, to_skip - len(text))
                    if fresh:
                        delivered += len(fresh)
                        on_output(source, fresh)

        try:
            self._retrying(read)
        except ConnectionLostError:
            # `watch` finds the same out while it waits, and says so.
            return
        except UnicodeDecodeError:
            on_output(source, "\n[modalrun: the rest of this stream is not UTF-8 text]\n")

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
        # Three threads lose the connection at the same moment; one of them makes the new one.
        with self._lock:
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


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what the SDK raises into our errors.

    `modal.exception.ConnectionError` and `TimeoutError` are not the builtins, and both kinds occur.
    """
    from modal import exception as modal_errors

    try:
        yield
    except (modal_errors.AuthError, modal_errors.PermissionDeniedError) as error:
        raise AuthenticationError(
            f"Modal did not accept the token: {error}",
            hint="Run 'modal setup', or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET.",
        ) from error
    except modal_errors.NotFoundError as error:
        raise NotFoundError(f"Modal: {error}") from error
    except modal_errors.ResourceExhaustedError as error:
        raise CapacityError(
            f"Modal has no room for this: {error}",
            hint="Try again later, another region or GPU type, or raise your Modal limits.",
        ) from error
    except modal_errors.RemoteError as error:
        image_id = getattr(error, "image_id", None)
        raise RunFailedError(
            f"Modal could not build the image{f' {image_id}' if image_id else ''}: {error}"
        ) from error
    except modal_errors.AlreadyExistsError:
        raise
    except (modal_errors.InvalidError, modal_errors.VersionError) as error:
        raise UsageError(f"Modal refuses this: {error}") from error
    except (
        modal_errors.ConnectionError,
        modal_errors.ServiceError,
        modal_errors.InternalError,
        modal_errors.ClientClosed,
        builtins.ConnectionError,
        socket.gaierror,
    ) as error:
        raise ConnectionLostError(f"The connection to Modal failed: {error}") from error


def _require_server(url: str) -> None:
    """Find out within `CONNECT_SECONDS` that nothing answers at the server's address."""
    parts = urlsplit(url.split(",", maxsplit=1)[0])
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        # Behind a proxy only the SDK knows the way.
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS).close()
    except OSError as error:
        raise ConnectionLostError(
            f"Modal can't be reached at {url}: {error}. Nothing was created on Modal.",
            hint="Check the network. 'target: local' runs without Modal.",
        ) from error


def _image(recipe: ImageRecipe, source: Path, *, add_package: bool) -> modal.Image:
    import modal

    if recipe.parent_image:
        image = modal.Image.from_registry(recipe.parent_image)
    else:
        image = modal.Image.debian_slim(python_version=recipe.python_version)
    if recipe.apt_packages:
        image = image.apt_install(*recipe.apt_packages)
    if recipe.python_packages:
        image = image.uv_pip_install(*recipe.python_packages)
    if recipe.environment:
        image = image.env(dict(recipe.environment))
    # Files last: they are mounted, so a change of code rebuilds nothing.
    if add_package:
        image = image.add_local_python_source("modalrun")
    return image.add_local_dir(source, CODE_FOLDER, ignore=[])
