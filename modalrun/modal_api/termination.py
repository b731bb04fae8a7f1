"""Ending the sandboxes of a run: asked to, or by force."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from modalrun.errors import CapacityError, ConnectionLostError, ModalrunError, NotFoundError
from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import translated
from modalrun.modal_api.running_sandbox import RunningSandbox
from modalrun.run.contract import STOP
from modalrun.run.sandbox_exit import SandboxExit
from modalrun.run.tags import TAG_ROLE, TAG_RUN
from modalrun.util.backoff import pauses

if TYPE_CHECKING:
    import modal

END_SECONDS = 60.0
"""How long sandboxes that were told to end are waited for."""

_AT_ONCE = 16
"""Calls at the same time: a hundred sandboxes one by one would take Modal's cloud many seconds."""


class RunSandboxes:
    """All sandboxes of one run, whoever created them."""

    def __init__(self, connection: Connection, run_id: str, app_id: str, sandbox_id: str) -> None:
        """Nothing is asked yet.

        Args:
            connection: To where the run runs.
            run_id: ZenML's run id, which the sandboxes' tags carry.
            app_id: Modal's id of their app.
            sandbox_id: The run sandbox.
        """
        self._connection = connection
        self._run_id = run_id
        self._app_id = app_id
        self._sandbox_id = sandbox_id

    def ask_to_stop(self) -> bool:
        """Ask the run sandbox for a graceful stop; returns whether it was there to be asked.

        Asking twice does no harm: input is counted by its offset, and the second is the same.

        Raises:
            ModalrunError: Modal can't be asked.
        """
        try:
            sandbox = self._connection.attach(self._sandbox_id)
            with translated():
                if sandbox.poll() is not None:
                    return False
                sandbox.stdin.write(f"{STOP}\n")
                sandbox.stdin.drain()
        except NotFoundError:
            return False
        except ValueError:
            # The SDK's word for an input that is closed: the sandbox is about to end.
            return False
        return True

    def wait(self) -> SandboxExit | None:
        """Wait until the run sandbox has ended; None where Modal doesn't know it any more.

        Raises:
            ConnectionLostError: The connection is lost for good; the sandbox may still run.
        """
        try:
            sandbox = self._connection.attach(self._sandbox_id)
            return RunningSandbox(self._connection, sandbox, app_id=self._app_id).wait()
        except NotFoundError:
            return None

    def wait_for_steps(self) -> None:
        """Wait until no step sandbox runs any more."""
        while steps := self.running("step"):
            for sandbox in steps:
                RunningSandbox(self._connection, sandbox, app_id=self._app_id).wait()

    def running(self, role: str | None = None) -> list[modal.Sandbox]:
        """The sandboxes that run or start, of one role or of both."""
        import modal

        tags = {TAG_RUN: self._run_id} | ({TAG_ROLE: role} if role else {})
        with translated():
            return list(
                modal.Sandbox.list(app_id=self._app_id, tags=tags, client=self._connection.client)
            )

    def end(self, *, wait: bool = True, seconds: float = END_SECONDS) -> int:
        """End all of them by force, steps first, and those that are created meanwhile.

        Args:
            wait: Whether to return only when none is left.
            seconds: How long to try.

        Returns:
            How many were told to end.

        Raises:
            ModalrunError: Some may still run; its message has all that went wrong.
        """
        deadline = time.monotonic() + seconds
        errors: list[ModalrunError] = []
        ended: set[str] = set()

        def terminate(sandboxes: Iterable[modal.Sandbox], *, gone: bool) -> None:
            def one(sandbox: modal.Sandbox) -> None:
                ended.add(sandbox.object_id)
                try:
                    with translated():
                        if gone:
                            sandbox.terminate(wait=True)
                        else:
                            sandbox.terminate()
                except NotFoundError:
                    return
                except ModalrunError as error:
                    errors.append(error)

            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(one, sandboxes))

        waits = pauses()
        while True:
            errors.clear()
            try:
                terminate(self.running("step"), gone=False)
                terminate(self.running("run"), gone=False)
                left = self.running()
                if not wait and not errors:
                    return len(ended)
                # One that the driver was just creating turns up once the driver is gone.
                terminate(left, gone=True)
                if not left and not errors:
                    return len(ended)
            except (CapacityError, ConnectionLostError) as error:
                # Also where Modal limits the rate: what still runs is billed.
                errors.append(error)
            if time.monotonic() > deadline:
                break
            if errors:
                time.sleep(next(waits))
            else:
                waits = pauses()
        raise _together(errors, self._run_id)


def _together(errors: list[ModalrunError], run_id: str) -> ModalrunError:
    """Several errors as one, of the class of the first."""
    hint = f"Run 'modalrun stop --force {run_id}' again."
    if not errors:
        return ConnectionLostError(f"Sandboxes of the run {run_id} don't end.", hint=hint)
    messages = list(dict.fromkeys(error.message for error in errors))
    return type(errors[0])(
        "\n".join([f"Sandboxes of the run {run_id} may still run:", *messages]), hint=hint
    )
