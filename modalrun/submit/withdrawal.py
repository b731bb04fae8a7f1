"""Withdraw a submission that has failed or was interrupted: end its sandbox, record its end."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from modalrun.errors import (
    InternalError,
    Interrupted,
    ModalrunError,
    NotFoundError,
    RunFailedError,
    RunStoppedError,
    UnknownOutcomeError,
    UsageError,
)
from modalrun.observe.handle import RunObserver
from modalrun.run.metadata import Announced, to_metadata
from modalrun.run.run_plan import RunPlan
from modalrun.submit.preflight import Job
from modalrun.util import interrupts
from modalrun.util.background import begin, in_background
from modalrun.util.machine import machine_error
from modalrun.zenml_api.errors import first_line, store_error
from modalrun.zenml_api.gateway import ZenMLGateway

SECONDS = 4.0
"""How long a submission is withdrawn after a signal: CI systems kill 7.5 to 10 s after theirs."""

WITHDRAW_SECONDS = 2.0
"""How long a sandbox is looked for that Modal may still be creating."""

WITHDRAW_PAUSE = 0.25
"""Seconds between two such looks."""

Silent = Literal["Modal", "ZenML"] | None
"""Who has not answered; None for nobody."""

_INTERRUPTS = (KeyboardInterrupt, Interrupted, BrokenPipeError)
"""A signal, or the reader of the output has gone."""


@dataclass(frozen=True)
class Withdrawal:
    """Leave no record and no sandbox that look alive.

    Attributes:
        plan: The run's plan, with its images as far as they are known.
        observer: Receives what was done.
        unanswered: Set while Modal has been asked for the sandbox and has not answered.
        resumed: Whether the run has had a sandbox before.
    """

    job: Job
    plan: RunPlan
    zenml: ZenMLGateway
    observer: RunObserver
    unanswered: threading.Event
    resumed: bool

    def in_time(self, run_id: str, error: BaseException) -> None:
        """Withdraw a run as `_withdraw` does, and within seconds once a signal has come.

        Raises:
            KeyboardInterrupt, Interrupted: More signals came after the first.
        """
        over = threading.Event()

        def withdraw() -> None:
            self._withdraw(run_id, error)
            over.set()

        try:
            if isinstance(error, _INTERRUPTS):
                # More signals must not interrupt this.
                with interrupts.deferred():
                    interrupts.forget()
                    interrupts.within(SECONDS, withdraw)
            else:
                # The error matters more than a signal that comes while ZenML has trouble.
                with contextlib.suppress(KeyboardInterrupt, Interrupted):
                    in_background(withdraw, grace=SECONDS)
                interrupts.forget()
        finally:
            if not over.is_set():
                say_at_last(
                    self.observer,
                    f"What is left of the run {run_id} is not known: ZenML or Modal has not"
                    f" answered. 'modalrun stop --force {run_id}' ends it.",
                )

    def undo_resume(self, run_id: str, *, paused: bool) -> Silent:
        """End the new sandbox of a run, but not the run.

        Args:
            paused: Whether the run was paused, and is to be so again.

        Returns:
            Who has not said that it is done; None if nothing is left.
        """
        silent: list[Silent] = ["Modal"]

        def undo() -> None:
            if self._terminate_sandbox(run_id) is not None:
                return
            silent[:] = ["ZenML"]
            if paused:
                self.zenml.pause_again(run_id)
            silent[:] = [None]

        # What can't be recorded is told.
        with contextlib.suppress(Exception):
            interrupts.within(SECONDS, undo)
        return silent[0]

    def _withdraw(self, run_id: str, error: BaseException) -> None:
        """Withdraw a run that has got no sandbox for an error, or for a signal's exception.

        What can't be recorded is told: the error matters more.
        """
        if isinstance(error, UnknownOutcomeError):
            # By its announcement, `status`, `reconcile` and `stop` look for the sandbox.
            return
        interrupted = isinstance(error, _INTERRUPTS)
        stopped = interrupted or isinstance(error, RunStoppedError)
        looking: Future[str | None] | None = None
        if stopped or not isinstance(error, ModalrunError):
            # Modal may have created the sandbox before. ZenML's records don't wait for its answer.
            looking = begin(lambda: self._terminate_sandbox(run_id))
        if stopped:
            reason = "The submission was interrupted." if interrupted else str(error)
            # ZenML resets the record of a run that it could not resume.
            self._finalize(run_id, reason, stopped=not (interrupted and self.resumed))
        else:
            shown = _shown(error)
            self._announce(run_id, exit_code=shown.exit_code)
            self._finalize(run_id, f"The run sandbox was not created: {shown.problem}")
        left = looking.result() if looking is not None else None
        if stopped:
            # It also makes `list` show the run.
            self._announce(run_id, withdrawn=left is None)
        if left is not None:
            what = "Cancelled the run" if stopped else "The submission failed of the run"
            say_at_last(
                self.observer, f"{what} {run_id}{left} 'modalrun stop --force {run_id}' ends it."
            )
        elif interrupted:
            say_at_last(self.observer, f"Cancelled the run {run_id}; nothing of it is running.")

    def _announce(
        self, run_id: str, *, withdrawn: bool = False, exit_code: int | None = None
    ) -> None:
        told = announcement(self.plan, withdrawn=withdrawn, exit_code=exit_code)
        with contextlib.suppress(Exception):
            self.zenml.publish_metadata(run_id, told)

    def _finalize(self, run_id: str, reason: str, *, stopped: bool = False) -> None:
        try:
            self.zenml.finalize_run(run_id, reason, stopped=stopped)
        except Exception as error:
            problem = _shown(store_error(error) or error).problem.rstrip(".")
            say_at_last(
                self.observer,
                f"The end of the run {run_id} is not recorded: {problem}."
                f" 'modalrun reconcile --force {run_id}' records it.",
            )

    def _terminate_sandbox(self, run_id: str) -> str | None:
        """Terminate the run sandbox if there is one; return what to say if that is unknown."""
        until = time.monotonic() + WITHDRAW_SECONDS
        while True:
            try:
                spec = self.plan.sandbox_of_run(run_id)
                self.job.modal.terminate(self.job.connection, self.plan, spec)
            except NotFoundError:
                if not self.unanswered.is_set():
                    return None
            except ModalrunError as problem:
                return f". Modal can't be asked whether its sandbox was created: {problem.message}"
            else:
                return None
            if time.monotonic() > until:
                return (
                    "; nothing of it is running. Modal has not answered yet: a sandbox that comes"
                    " later sees that the run is stopped, and ends. If it does not,"
                )
            time.sleep(WITHDRAW_PAUSE)


def _shown(error: BaseException) -> ModalrunError:
    """Return the error as which a command shows another one (`cli.run`)."""
    if isinstance(error, ModalrunError):
        return error
    if isinstance(error, OSError | MemoryError):
        return machine_error(error, creates_run=True)
    return InternalError(f"{type(error).__name__}: {first_line(error)}")


def as_recorded(error: ModalrunError, run_id: str) -> ModalrunError:
    """Return the error of a submission whose run has a record: something was created."""
    # The exit code of a wrong setting would say that there is no run.
    kind = RunFailedError if isinstance(error, UsageError) else type(error)
    return kind(error.problem, effect=f"The run {run_id} is recorded as failed.", hint=error.hint)


def announcement(
    plan: RunPlan, *, withdrawn: bool = False, exit_code: int | None = None
) -> dict[str, Any]:
    """Return the metadata by which `stop` finds a run that has no sandbox yet.

    Args:
        withdrawn: Whether nothing of it runs any more.
        exit_code: How its submission has ended.
    """
    settings = plan.settings
    return to_metadata(
        Announced(
            plan.target,
            settings.mode,
            settings.app_name,
            settings.modal_environment,
            withdrawn,
            exit_code=exit_code,
        )
    )


def say_at_last(observer: RunObserver, text: str) -> None:
    """Say a line on a terminal that may be gone, or that nobody reads."""
    with contextlib.suppress(OSError):
        interrupts.within(interrupts.OUTPUT_SECONDS, lambda: observer.say(text, "yellow"))
