"""`modalrun stop`."""

from __future__ import annotations

from typing import Annotated

import typer

from modalrun.cli.run_argument import Interruption, Run, resolved
from modalrun.output import writer


def stop(
    run: Run = None,
    *,
    force: Annotated[
        bool,
        typer.Option(
            "--force/--graceful",
            help="End the sandboxes now, or start no new step and let running steps finish"
            " (default).",
        ),
    ] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            help="Wait until the run has stopped (default), or return at once.",
        ),
    ] = True,
) -> None:
    """Stop a run, from any machine.

    The run ends as 'stopped' in ZenML. A run that has ended already is left as it is.

    Exit codes: 0 stopped or ended already, 3 not authenticated, 4 no such run, 8 connection lost,
    130 interrupted while waiting.
    """
    with Interruption("Interrupted. No run was asked to stop.") as interruption:
        from modalrun.control import stop as stopping

        with resolved(run) as (found, spinner):
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
