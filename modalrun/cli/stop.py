"""`modalrun stop`."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import typer

from modalrun.cli.options import confirmed
from modalrun.cli.run_argument import Interruption, RunToStop, resolved
from modalrun.errors import UsageError
from modalrun.output.terminal import writer
from modalrun.output.terminal.spinner import Spinner

if TYPE_CHECKING:
    from modalrun.run.records import RunRecord


def stop(
    run: RunToStop = None,
    *,
    force: Annotated[
        bool,
        typer.Option(
            "--force/--graceful",
            help="End the sandboxes now, or start no new step and let running steps finish.",
        ),
    ] = False,
    wait: Annotated[
        bool,
        typer.Option("--wait/--no-wait", help="Wait until the run has stopped, or return at once."),
    ] = True,
) -> None:
    """Stop a run, from any machine.

    The run ends as 'stopped' in ZenML; if all its steps have started, as they end. A run that has
    ended already is left as it is. Without RUN, the newest run is meant: on a terminal you are
    asked first, elsewhere it must be your own. 'stop latest' stops the newest run of the project,
    whoever submitted it.

    Exit codes: 0 stopped or ended already, 2 RUN is missing and the newest run is not yours, 3 not
    authenticated, 4 no such run, 8 connection lost, 130 interrupted, or the answer was no.
    """
    with Interruption("Interrupted. No run was asked to stop.") as interruption:
        from modalrun.control import stop as stopping
        from modalrun.run.records import LATEST

        with resolved(LATEST if run is None else run) as (found, spinner):
            if run is None:
                _require_consent(found, spinner)
            again = f"'modalrun stop {found.id}' stops it"
            interruption.text = f"Interrupted. The run {found.id} may go on; {again}."

            def say(text: str) -> None:
                look = f"'modalrun status {found.id}' shows whether it has"
                interruption.text = f"Interrupted. The run {found.id} was asked to stop; {look}."
                spinner.end()
                writer.err(text)
                spinner.show("Stopping the run")

            spinner.show("Stopping the run")
            stopped = stopping.stop(found.id, force=force, wait=wait, say=say)
    writer.err(stopped.headline)
    if run is None and found.finished:
        writer.err("'modalrun list --state running' shows the runs that go on.")


def _require_consent(run: RunRecord, spinner: Spinner) -> None:
    """Ask whether to stop this run, which was not named, or check that it is the caller's own.

    Raises:
        UsageError: There is nobody to ask, and it is somebody else's.
        Abort: The answer is no.
    """
    from modalrun.output.terminal.sanitize import plain
    from modalrun.util.timeformat import duration_of
    from modalrun.zenml_api.gateway import ZENML

    age = duration_of((datetime.now(timezone.utc) - run.created).total_seconds(), whole=True)
    user = f"submitted by {run.user.name}" if run.user else "of a deleted user"
    text = plain(f"the run {run.name} ({run.id}) of the pipeline {run.pipeline}, {user} {age} ago")
    if sys.stdin.isatty() and sys.stderr.isatty():
        if not run.finished:
            spinner.end()
            if not confirmed(f"Stop {text}?"):
                raise typer.Abort
    elif run.user is None or run.user.id != ZENML.active_user():
        raise UsageError(
            f"RUN is missing: the newest run is not yours. It is {text}.",
            effect="No run was asked to stop.",
            hint=f"To stop that one: modalrun stop {run.id}; 'modalrun list' shows the runs.",
        )
