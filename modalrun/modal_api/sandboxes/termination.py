"""Stop the sandboxes of a run: gracefully, or by force."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from modalrun.errors import CapacityError, ConnectionLostError, ModalrunError, NotFoundError
from modalrun.modal_api.client import Connection, require_owner
from modalrun.modal_api.errors import translated
from modalrun.modal_api.sandboxes.running_sandbox import RunningSandbox
from modalrun.run.contract import STOP
from modalrun.run.records import App, StepRecord
from modalrun.run.run_plan import sandbox_name
from modalrun.run.sandbox_names import sandbox_names
from modalrun.run.tags import TAG_ROLE, TAG_RUN
from modalrun.util.backoff import pauses

if TYPE_CHECKING:
    import modal

END_SECONDS = 60.0
"""How long the termination of sandboxes may take."""

_AT_ONCE = 16
"""Calls at the same time: a hundred sandboxes one by one would take many seconds on Modal."""


class SandboxGroup:
    """All sandboxes of one run, whichever process created them."""

    def __init__(
        self, connection: Connection, run_id: str, *app_ids: str, apps: Sequence[App] = ()
    ) -> None:
        """Prepare for a run by ZenML's run id, and Modal's ids of the apps that it may be in.

        A sandbox is the run's if its tags say so, whatever ZenML's metadata says. Modal's list may
        lag: with `apps`, sandboxes are found by their names too.
        """
        self._connection = connection
        self._run_id = run_id
        self._app_ids = app_ids
        self._apps = apps
        self._step_names: list[str] = []
        self._ended: set[str] = set()

    def expect(self, steps: Iterable[StepRecord]) -> None:
        """Note which steps may have a sandbox, besides those that Modal lists."""
        self._step_names = sandbox_names(self._run_id, steps)

    def request_stop(self) -> bool:
        """Request a graceful stop; return whether the run sandbox was running."""
        asked = False
        for found in self.running("run"):
            # The SDK raises a ValueError for a closed input: the sandbox is about to end.
            with contextlib.suppress(NotFoundError, ValueError):
                self._connection.write_input(found.object_id, self._run_id, f"{STOP}\n")
                asked = True
        return asked

    def wait(self, role: str) -> None:
        """Wait until no sandbox of a role runs any more.

        Raises:
            ConnectionLostError: The connection is lost for good; some may still run.
        """
        while sandboxes := self.running(role):
            for sandbox in sandboxes:
                with contextlib.suppress(NotFoundError):
                    RunningSandbox(
                        self._connection, sandbox, self._run_id, app_id=self._app_ids[0]
                    ).wait()
                self._ended.add(sandbox.object_id)

    def running(self, role: str | None = None) -> list[modal.Sandbox]:
        """Return the sandboxes that run or start, of one role or of both."""
        import modal

        tags = {TAG_RUN: self._run_id} | ({TAG_ROLE: role} if role else {})
        with translated():
            client = self._connection.client
            found = {
                sandbox.object_id: sandbox
                for app in self._app_ids
                for sandbox in modal.Sandbox.list(app_id=app, tags=tags, client=client)
            }
        names = [] if role == "step" else [sandbox_name(self._run_id)]
        names += [] if role == "run" else self._step_names
        places = [(app, name) for app in self._apps for name in names]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for named in pool.map(self._named, places):
                if named is not None:
                    found.setdefault(named.object_id, named)
        return [sandbox for sandbox in found.values() if sandbox.object_id not in self._ended]

    def _named(self, place: tuple[App, str]) -> modal.Sandbox | None:
        """Find a running sandbox of the run by its app and name."""
        import modal

        app, name = place
        with contextlib.suppress(NotFoundError), translated():
            sandbox = modal.Sandbox.from_name(
                app.app, name, environment_name=app.environment, client=self._connection.client
            )
            require_owner(sandbox.object_id, sandbox.get_tags(), self._run_id)
            return sandbox
        return None

    def terminate(self, *, wait: bool = True, seconds: float = END_SECONDS) -> int:
        """Terminate all sandboxes, steps first, including those that are created meanwhile.

        Args:
            wait: Whether to return only when none is left.
            seconds: How long to try.

        Returns:
            The number of sandboxes that were terminated.

        Raises:
            ModalrunError: Some may still run; the message has every error.
        """
        import modal

        deadline = time.monotonic() + seconds
        errors: list[ModalrunError] = []
        terminated: set[str] = set()
        ended = (modal.exception.NotFoundError, modal.exception.SandboxTimeoutError)

        def terminate_each(sandboxes: Iterable[modal.Sandbox], **options: Any) -> None:
            def terminate_one(sandbox: modal.Sandbox) -> None:
                terminated.add(sandbox.object_id)
                try:
                    # A list may lag, and have a sandbox that its timeout has ended.
                    with translated(), contextlib.suppress(*ended):
                        sandbox.terminate(**options)
                    if "wait" in options:
                        self._ended.add(sandbox.object_id)
                except ModalrunError as error:
                    errors.append(error)

            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(terminate_one, sandboxes))

        waits = pauses()
        while True:
            errors.clear()
            try:
                terminate_each(self.running("step"))
                terminate_each(self.running("run"))
                remaining = self.running()
                if not wait:
                    terminate_each(remaining)
                    if not errors:
                        return len(terminated)
                # A sandbox that the driver was creating turns up once the driver is gone.
                terminate_each(remaining, wait=True)
                if not remaining and not errors:
                    return len(terminated)
            except (CapacityError, ConnectionLostError) as error:
                # Also for a rate limit: a sandbox that still runs is billed.
                errors.append(error)
            if time.monotonic() > deadline:
                raise _combined(errors, self._run_id)
            if errors:
                time.sleep(next(waits))
            else:
                waits = pauses()


def _combined(errors: list[ModalrunError], run_id: str) -> ModalrunError:
    """Combine errors into one, of the class of the first."""
    hint = f"Run 'modalrun stop --force {run_id}' again."
    if not errors:
        return ConnectionLostError(f"Sandboxes of the run {run_id} don't end.", hint=hint)
    messages = list(dict.fromkeys(error.message for error in errors))
    return type(errors[0])(
        "\n".join([f"Sandboxes of the run {run_id} may still run:", *messages]), hint=hint
    )
