"""Stopping a run from anywhere: graceful (running steps finish) or by force."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from sys import stderr
from typing import TYPE_CHECKING, cast

from modalrun.errors import ModalrunError, NotFoundError
from modalrun.modal_api import Connection, lookup
from modalrun.modal_api.termination import END_SECONDS, RunSandboxes

if TYPE_CHECKING:
    from modalrun.spec.run_spec import Target
    from modalrun.zenml_api.records.run_access import StoppableRun

ANNOUNCED_SECONDS = 10.0
"""How long a run that is being submitted may have nothing of modalrun's on record."""

WITHDRAWN_SECONDS = 30.0
"""How long the process that submits a run may take to give it up."""

LOOK_SECONDS = 0.5
"""Between two looks at ZenML's record."""

FORCED = "The run was stopped by force."
ASKED = "The run was asked to stop."


@dataclass(frozen=True)
class Stopped:
    """What came of a request to stop.

    Attributes:
        run_id: ZenML's run id.
        status: ZenML's word for the run's state now.
        headline: One sentence.
    """

    run_id: str
    status: str
    headline: str


def stop(run_id: str, *, force: bool, wait: bool, say: Callable[[str], None]) -> Stopped:
    """Stop a run. To be called inside `preparation.zenml_process`.

    Graceful: nothing new starts, running steps finish, then the run ends as STOPPED. By force: its
    sandboxes end now, steps before their driver, and so do sandboxes created meanwhile.

    Args:
        run_id: ZenML's run id.
        force: By force.
        wait: Whether to return only when it is true.
        say: Is told what is being waited for.

    Raises:
        NotFoundError: There is no such run, or modalrun has no sandbox of it on record.
        ModalrunError: ZenML or Modal can't be asked; sandboxes may still run.
    """
    with redirect_stdout(stderr):
        from modalrun.zenml_api.records import run_access

        run = run_access.read_stoppable(run_id)
    if run.finished and not (force and run.metadata):
        return Stopped(run.id, run.status, _already(run))
    if run.metadata is None:
        with redirect_stdout(stderr):
            withdrawn = _while_submitted(run, wait=wait, say=say)
            if withdrawn is not None:
                return withdrawn
            run = run_access.read_stoppable(run_id)
    assert run.metadata is not None
    connection = Connection(cast("Target", run.metadata.target), credentials=run.credentials)
    sandboxes = RunSandboxes(connection, run.id, run.metadata.app_id, run.metadata.sandbox_id)
    if run.finished:
        ended = sandboxes.end(wait=wait)
        more = f" {_count(ended)} that still ran {_were(ended)} told to end." if ended else ""
        return Stopped(run.id, run.status, _already(run) + more)
    with redirect_stdout(stderr):
        if force:
            return by_force(run.id, sandboxes, wait=wait)
        return _graceful(run, sandboxes, wait=wait, say=say)


def _while_submitted(
    run: StoppableRun, *, wait: bool, say: Callable[[str], None]
) -> Stopped | None:
    """Stop a run that has no sandbox on record; None once it has one, which can be ended.

    The process that submits it sees in ZenML that it is to end, ends what it has created, and says
    so in ZenML. Where that process is gone, what it has created is ended here.
    """
    from modalrun.zenml_api.records import run_access, runs

    until = time.monotonic() + ANNOUNCED_SECONDS
    while run.metadata is None and run.announced is None and not run.finished:
        if time.monotonic() > until:
            raise NotFoundError(
                f"ZenML has no sandbox on record for the run {run.id} ({run.status}).",
                hint="modalrun did not start it, or the process that submitted it was killed before"
                " Modal was asked for anything: 'modalrun reconcile --force' settles its record.",
            )
        time.sleep(LOOK_SECONDS)
        run = run_access.read_stoppable(run.id)
    if run.metadata is not None:
        return None
    if run.finished:
        return Stopped(run.id, run.status, _already(run))
    runs.mark_stopping(run.id, ASKED)
    if not wait:
        return Stopped(run.id, run.status, f"The run {run.id} was asked to stop.")
    say("The run is still being submitted; waiting for that to be given up.")
    until = time.monotonic() + WITHDRAWN_SECONDS
    while not (run.announced and run.announced.withdrawn) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        run = run_access.read_stoppable(run.id)
        if run.metadata is not None:
            return None
    assert run.announced is not None
    connection = Connection(cast("Target", run.announced.target), credentials=run.credentials)
    app_id = lookup.app_id(connection, run.announced.app, run.announced.environment)
    if app_id is not None:
        RunSandboxes(connection, run.id, app_id, "").end()
    runs.finalize_run(run.id, ASKED, stopped=True)
    return _result(run_access.read_stoppable(run.id))


def by_force(
    run_id: str, sandboxes: RunSandboxes, *, wait: bool = True, seconds: float = END_SECONDS
) -> Stopped:
    """End every sandbox of a run now and record that it was stopped.

    Args:
        run_id: ZenML's run id.
        sandboxes: The run's.
        wait: Whether to make sure that none is left.
        seconds: How long to try.

    Raises:
        ModalrunError: ZenML or Modal can't be asked; sandboxes may still run.
    """
    from modalrun.zenml_api.records import run_access, runs

    unrecorded: ModalrunError | None = None
    try:
        # First, so that what ends now is recorded as stopped and ZenML takes no new step.
        runs.mark_stopping(run_id, FORCED)
    except ModalrunError as error:
        # Sandboxes cost money, also while ZenML's server is away.
        unrecorded = error
    sandboxes.end(wait=wait, seconds=seconds)
    if unrecorded is not None:
        raise type(unrecorded)(
            f"The sandboxes of the run {run_id} have ended, but ZenML can't be told:"
            f" {unrecorded.message}",
            hint=f"Run 'modalrun stop {run_id}' again when the server is back.",
        ) from unrecorded
    runs.finalize_run(run_id, FORCED, stopped=True)
    if wait:
        # Once more: a creation that was on its way when the driver ended.
        sandboxes.end(seconds=seconds)
    return _result(run_access.read_stoppable(run_id))


def _graceful(
    run: StoppableRun, sandboxes: RunSandboxes, *, wait: bool, say: Callable[[str], None]
) -> Stopped:
    from modalrun.zenml_api.records import run_access, runs

    asked = sandboxes.ask_to_stop()
    if asked:
        run_access.record_stop_request(run.id)
    if asked and not wait:
        return Stopped(run.id, run.status, f"The run {run.id} was asked to stop.")
    if asked:
        what = f"to finish: {', '.join(run.running)}" if run.running else "to end"
        say(f"Asked to stop; waiting for what runs {what}.")
        say("Ctrl-C leaves it to itself; --force ends it now.")
        sandboxes.wait()
    if left := sandboxes.running("step"):
        # Without a driver nothing new starts, and what runs may finish by itself.
        text = f"The run has no driver any more; step sandboxes that still run: {len(left)}."
        if not wait:
            # Its end is recorded by whoever waits for it.
            again = f"'modalrun stop {run.id}' waits for them, with --force it ends them now."
            return Stopped(run.id, run.status, f"{text} {again}")
        say(f"{text} Waiting for them to finish.")
        sandboxes.wait_for_steps()
    runs.finalize_run(run.id, ASKED, stopped=True)
    return _result(run_access.read_stoppable(run.id))


def _result(run: StoppableRun) -> Stopped:
    said = {"stopped": "is stopped", "stopping": "is stopping"}.get(run.status)
    headline = f"The run {run.id} {said or f'ended by itself meanwhile: {run.status}'}."
    return Stopped(run.id, run.status, headline)


def _already(run: StoppableRun) -> str:
    return f"The run {run.id} has ended already: {run.status}."


def _count(number: int) -> str:
    return "One sandbox" if number == 1 else f"{number} sandboxes"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"
