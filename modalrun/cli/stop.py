"""`modalrun stop`."""

from __future__ import annotations

from typing import Annotated

import typer

from modalrun.cli.run_argument import Run, resolved
from modalrun.errors import Interrupted
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
    from modalrun.control import stop as stopping

    with resolved(run) as (found, spinner):
        spinner.show("Stopping the run")

        asked = False

        def say(text: str) -> None:
            nonlocal asked
            asked = True
            spinner.end()
            writer.err(text)
            spinner.show("Stopping the run")

        try:
            stopped = stopping.stop(found.id, force=force, wait=wait, say=say)
        except (KeyboardInterrupt, Interrupted):
            spinner.end()
            done = "was asked to stop, and does" if asked else "may go on: stop it again"
            writer.err(f"Interrupted. The run {found.id} {done}.")
            raise
    writer.err(stopped.headline)
