"""Stop the sandboxes of a run: gracefully, or by force."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from modalrun.errors import CapacityError, ConnectionLostError, ModalrunError, NotFoundError
from modalrun.modal_api.client import Connection, ForeignSandboxError
from modalrun.modal_api.errors import translated
from modalrun.modal_api.running_sandbox import RunningSandbox
from modalrun.run.contract import STOP
from modalrun.run.sandbox_exit import SandboxExit
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

    def __init__(self, connection: Connection, run_id: str, app_id: str, sandbox_id: str) -> None:
        """Prepare for a run by ZenML's run id, and Modal's ids of its app and run sandbox."""
        self._connection = connection
        self._run_id = run_id
        self._app_id = app_id
        self._sandbox_id = sandbox_id

    def require_own(self) -> None:
        """Check that the run sandbox on record is the run's; one that is gone may be.

        Raises:
            ForeignSandboxError: It belongs to something else.
        """
        try:
            self._connection.attach(self._sandbox_id, self._run_id)
        except ForeignSandboxError as error:
            raise ForeignSandboxError(
                f"{error.message} Somebody has changed that record, so nothing was stopped.",
                hint=f"Look on Modal for a sandbox with the tag '{TAG_RUN}' of this run, and"
                " terminate it there; 'modalrun reconcile --force' then settles the record.",
            ) from error
        except NotFoundError:
            return

    def request_stop(self) -> bool:
        """Request a graceful stop; return whether the run sandbox was running."""
        try:
            sandbox = self._connection.attach(self._sandbox_id, self._run_id)
            with translated():
                if sandbox.poll() is not None:
                    return False
                sandbox.stdin.write(f"{STOP}\n")
                sandbox.stdin.drain()
        except NotFoundError:
            return False
        except ValueError:
            # The SDK raises this for a closed input: the sandbox is about to end.
            return False
        return True

    def wait(self) -> SandboxExit | None:
        """Wait until the run sandbox has ended; None if Modal does not know it any more.

        Raises:
            ConnectionLostError: The connection is lost for good; the sandbox may still run.
        """
        try:
            sandbox = self._connection.attach(self._sandbox_id, self._run_id)
            return RunningSandbox(
                self._connection, sandbox, self._run_id, app_id=self._app_id
            ).wait()
        except NotFoundError:
            return None

    def wait_for_steps(self) -> None:
        """Wait until no step sandbox runs any more."""
        while steps := self.running("step"):
            for sandbox in steps:
                RunningSandbox(self._connection, sandbox, self._run_id, app_id=self._app_id).wait()

    def running(self, role: str | None = None) -> list[modal.Sandbox]:
        """Return the sandboxes that run or start, of one role or of both."""
        import modal

        tags = {TAG_RUN: self._run_id} | ({TAG_ROLE: role} if role else {})
        with translated():
            return list(
                modal.Sandbox.list(app_id=self._app_id, tags=tags, client=self._connection.client)
            )

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

        def terminate_each(sandboxes: Iterable[modal.Sandbox], **options: Any) -> None:
            def terminate_one(sandbox: modal.Sandbox) -> None:
                terminated.add(sandbox.object_id)
                try:
                    with translated(), contextlib.suppress(modal.exception.NotFoundError):
                        sandbox.terminate(**options)
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
                if not wait and not errors:
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
