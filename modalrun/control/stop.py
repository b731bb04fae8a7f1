"""Stop a run from any machine: gracefully, so that running steps finish, or by force."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from concurrent import futures
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import Protocol

from modalrun.errors import ModalrunError, NotFoundError
from modalrun.modal_api.client import Connection
from modalrun.modal_api.gateway import MODAL, ModalGateway
from modalrun.modal_api.sandboxes.termination import END_SECONDS, SandboxGroup
from modalrun.run.contract import STOP_REASON
from modalrun.run.metadata import found_metadata
from modalrun.run.records import App, RunRecord
from modalrun.run.run_plan import Target
from modalrun.run.status import how_ended
from modalrun.util import background
from modalrun.zenml_api.gateway import ZENML, ZenMLGateway

ANNOUNCE_SECONDS = 10.0
"""How long a run that is being submitted may have nothing of modalrun's on record."""

CANCEL_SECONDS = 30.0
"""How long the submitting process may take to cancel its submission."""

POLL_SECONDS = 0.5
"""Between two reads of ZenML's record."""

FORCED = "The run was stopped by force."


class Clock(Protocol):
    """The functions of the module `time` that are used here."""

    def monotonic(self) -> float:
        """Return the seconds since a fixed moment."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


@dataclass(frozen=True)
class Stopped:
    """The result of a request to stop: ZenML's status of the run now, and one sentence."""

    run_id: str
    status: str
    headline: str


def stop(
    run_id: str,
    *,
    force: bool,
    wait: bool,
    say: Callable[[str], None],
    zenml: ZenMLGateway = ZENML,
    modal: ModalGateway = MODAL,
    clock: Clock = time,
) -> Stopped:
    """Stop a run. Call it inside `zenml_session` or `zenml_process`.

    Graceful: nothing new starts, running steps finish, then the run ends as STOPPED. By force: its
    sandboxes end now, steps before their driver, and so do sandboxes created meanwhile.

    Args:
        force: Whether to stop by force.
        wait: Whether to wait until the run has stopped.
        say: Called with a message on what is being waited for.

    Raises:
        NotFoundError: There is no such run, or no sandbox of it is on record.
        ModalrunError: ZenML or Modal can't be reached; sandboxes may still run.
    """
    with redirect_stdout(sys.stderr):
        action = _Stop(wait, say, zenml, modal, clock)
        return action.run(run_id, force=force)


def by_force(
    run_id: str,
    sandboxes: SandboxGroup,
    *,
    wait: bool = True,
    seconds: float = END_SECONDS,
    reason: str = FORCED,
    failing: bool = False,
    zenml: ZenMLGateway = ZENML,
) -> Stopped:
    """End every sandbox of a run now and record that it was stopped.

    ZenML gets a third of the time before sandboxes end: they cost money, also while its
    server is away.

    Args:
        wait: Whether to make sure that none is left.
        seconds: How long to try to end them.
        reason: Why it ended, a sentence; stored with the run.
        failing: Whether a step has failed before, for the sentence that is returned.

    Raises:
        ModalrunError: ZenML or Modal can't be reached; sandboxes may still run.
    """

    def mark() -> None:
        zenml.mark_stopping(run_id, reason)
        _expect_steps(run_id, sandboxes, zenml)

    # First, so that ZenML starts no new step and records what ends now as stopped.
    marking = background.begin(mark, "marking")
    futures.wait([marking], timeout=seconds / 3)
    ended = sandboxes.terminate(wait=wait, seconds=seconds)
    try:
        marking.result()
    except ModalrunError as unrecorded:
        raise type(unrecorded)(
            f"The sandboxes of the run {run_id} have ended, but ZenML can't record it:"
            f" {unrecorded.message}",
            hint=unrecorded.hint
            if isinstance(unrecorded, NotFoundError)
            else f"Run 'modalrun stop {run_id}' again when the server is back.",
        ) from unrecorded
    zenml.finalize_run(run_id, reason, stopped=True, unseen=not ended)
    if wait:
        # The driver may have been creating a sandbox when it ended.
        sandboxes.terminate(seconds=seconds)
    return _result(zenml.read_run(run_id), failing=failing)


@dataclass(frozen=True)
class _Stop:
    wait: bool
    say: Callable[[str], None]
    zenml: ZenMLGateway
    modal: ModalGateway
    clock: Clock

    def run(self, run_id: str, *, force: bool) -> Stopped:
        run = self.zenml.read_run(run_id)
        if run.finished and not (force and (run.metadata or _may_have_sandbox(run))):
            return _already(run)
        if run.metadata is None:
            cancelled = self._cancel_submission(run, force=force)
            if isinstance(cancelled, Stopped):
                return cancelled
            run = cancelled
        sandboxes = self._sandboxes(run)
        assert sandboxes is not None
        if run.finished:
            return _already(run, ended=sandboxes.terminate(wait=self.wait))
        if force:
            reason = self._reason(run, FORCED)
            return by_force(
                run.id,
                sandboxes,
                wait=self.wait,
                reason=reason,
                failing=run.failing,
                zenml=self.zenml,
            )
        return self._gracefully(run, sandboxes)

    def _cancel_submission(self, run: RunRecord, *, force: bool) -> Stopped | RunRecord:
        """Stop a run that has no sandbox on record; return its record if it has one after all.

        The submitting process reads in ZenML that it is to stop, ends what it has created, and
        records that. If that process is gone, its sandbox is ended here.
        """
        if run.parent is not None:
            raise NotFoundError(
                f"The run {run.id} is that of a child pipeline, which has no sandbox of its own.",
                hint=f"It stops with its parent: 'modalrun stop {run.parent}{' --force' * force}'.",
            )
        until = self.clock.monotonic() + ANNOUNCE_SECONDS
        while not (run.metadata or run.announced or run.finished):
            if run.problem or self.clock.monotonic() > until:
                raise NotFoundError(
                    f"ZenML has no sandbox on record for the run {run.id} ({run.status})."
                    f" {run.problem or ''}".strip(),
                    hint="modalrun did not start it, or the process that submitted it was killed"
                    f" before it used Modal: 'modalrun reconcile --force {run.id}' settles its"
                    " record.",
                )
            run = self._next(run)
        if run.finished and not run.metadata:
            return self._end_late_sandbox(run)
        run = run if run.metadata else self._with_sandbox(run)
        if run.metadata:
            return run
        self.zenml.mark_stopping(run.id, STOP_REASON)
        if not self.wait:
            return Stopped(run.id, run.status, f"The run {run.id} was asked to stop.")
        self.say(
            f"The run {run.id} has no sandbox yet; waiting up to {CANCEL_SECONDS:.0f} s until the"
            " process that submits it has cancelled it."
        )
        until = self.clock.monotonic() + CANCEL_SECONDS
        while not (run.announced and run.announced.withdrawn) and self.clock.monotonic() < until:
            run = self._next(run)
            if run.metadata:
                return run
        if (sandboxes := self._sandboxes(run)) is not None:
            return by_force(run.id, sandboxes, zenml=self.zenml)
        self.zenml.finalize_run(run.id, STOP_REASON, stopped=True)
        return _result(self.zenml.read_run(run.id))

    def _with_sandbox(self, run: RunRecord) -> RunRecord:
        """Return a run with its sandbox if that has a place, but is not on record.

        Its submission records it now, or was killed before it could: it is recorded here.
        """
        assert run.announced is not None
        with contextlib.suppress(ModalrunError):
            connection = self._connect(run, run.announced.target)
            found = self.modal.find_announced(connection, run.id, run.announced, placed=True)
            run = replace(run, metadata=found)
            if found is not None:
                self.zenml.publish_metadata(run.id, found_metadata(found))
        return run

    def _end_late_sandbox(self, run: RunRecord) -> Stopped:
        """End what Modal has created for a cancelled submission after that had given up."""
        sandboxes = self._sandboxes(run) if _may_have_sandbox(run) else None
        return _already(run, ended=sandboxes.terminate(wait=self.wait) if sandboxes else 0)

    def _sandboxes(self, run: RunRecord) -> SandboxGroup | None:
        """Return the sandboxes of a run; None if its app does not exist.

        A step that does not want to be stopped can change the metadata: the app is the one that its
        deployment names, also in the environment that a submission from here would use.
        """
        place = run.place
        assert place is not None
        connection = self._connect(run, place.target)
        app = self.zenml.app_of(run.id) or place
        environments = [app.environment] if app.environment else [place.environment, None]
        apps = [App(app.app, where) for where in dict.fromkeys(environments)]
        looked_up = (self.modal.app_id(connection, one.app, one.environment) for one in apps)
        ids = dict.fromkeys(one for one in looked_up if one is not None)
        if not ids and run.metadata is not None:
            state = self.modal.sandbox_state(run.id, run.metadata, lambda: connection)
            # Of a run that has ended, nothing may be left to stop.
            if state.not_found and not run.finished:
                raise NotFoundError(
                    f"The run {run.id} can't be stopped from here: {state.problem}",
                    hint="Stop it where it was submitted, or with a token of its workspace."
                    f" 'modalrun reconcile --force {run.id}' records its end all the same.",
                )
            ids[run.metadata.app_id] = None
        return self.modal.sandboxes_of(connection, run.id, *ids, apps=apps) if ids else None

    def _gracefully(self, run: RunRecord, sandboxes: SandboxGroup) -> Stopped:
        asked = sandboxes.request_stop()
        if asked:
            self.zenml.record_stop_request(run.id)
            if not self.wait:
                return Stopped(run.id, run.status, f"The run {run.id} was asked to stop.")
            running = self.zenml.unfinished_steps(run.id)
            what = f"the running steps to finish: {', '.join(running)}" if running else "its end"
            self.say(f"The run {run.id} was asked to stop; waiting for {what}.")
            self.say("Ctrl-C detaches; --force ends it now.")
            sandboxes.wait("run")
        _expect_steps(run.id, sandboxes, self.zenml)
        if left := sandboxes.running("step"):
            # Without a driver nothing new starts, and running steps may finish.
            text = f"The run {run.id} has no driver any more;"
            text += f" step sandboxes that still run: {len(left)}."
            if not self.wait:
                again = f"'modalrun stop {run.id}' waits for them, with --force it ends them now."
                return Stopped(run.id, run.status, f"{text} {again}")
            self.say(f"{text} Waiting for them to finish.")
            sandboxes.wait("step")
        reason = STOP_REASON if asked else self._reason(run, STOP_REASON)
        self.zenml.finalize_run(run.id, reason, stopped=True, unseen=not asked)
        return _result(self.zenml.read_run(run.id), failing=run.failing)

    def _reason(self, run: RunRecord, stop: str) -> str:
        """Return why a run ends; it says so if the run sandbox had ended before the stop."""
        metadata = run.metadata
        if metadata is None:
            return stop
        place = metadata.target
        state = self.modal.sandbox_state(run.id, metadata, lambda: self._connect(run, place))
        if state.sandbox == "unknown":
            self.say(f"Whether its sandbox still runs could not be checked: {state.problem}")
        if state.sandbox != "ended":
            return stop
        return f"The run sandbox {how_ended(state)}; then {stop[0].lower()}{stop[1:]}"

    def _connect(self, run: RunRecord, target: Target) -> Connection:
        credentials = self.zenml.credentials_of(run.id, target)
        return self.modal.connect(target, credentials=credentials)

    def _next(self, run: RunRecord) -> RunRecord:
        self.clock.sleep(POLL_SECONDS)
        return self.zenml.read_run(run.id)


def _expect_steps(run_id: str, sandboxes: SandboxGroup, zenml: ZenMLGateway) -> None:
    """Have the sandboxes of unfinished steps found by their names: Modal's list may lag."""
    run, steps = zenml.read_run_and_steps(run_id)
    if run.place is not None and run.place.mode == "per_step":
        sandboxes.expect(steps)


def _may_have_sandbox(run: RunRecord) -> bool:
    """Return whether a run without a sandbox on record was not withdrawn for certain."""
    return run.metadata is None and run.announced is not None and not run.announced.withdrawn


def _result(run: RunRecord, *, failing: bool = False) -> Stopped:
    """Return the result of a stop; `failing` is whether a step had failed before it."""
    ends = {"stopped": "is stopped", "stopping": "is stopping"}
    if failing:
        ends["failed"] = "is stopped. ZenML calls it 'failed', because a step had failed before"
    end = ends.get(run.status, f"ended before it stopped: {run.status}")
    return Stopped(run.id, run.status, f"The run {run.id} {end}.")


def _already(run: RunRecord, *, ended: int = 0) -> Stopped:
    headline = f"The run {run.id} has ended already: {run.status}."
    if ended:
        sandboxes = "one sandbox" if ended == 1 else f"{ended} sandboxes"
        headline += f" Terminated {sandboxes} that still ran."
    return Stopped(run.id, run.status, headline)
