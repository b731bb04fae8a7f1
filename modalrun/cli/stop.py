"""`modalrun stop`."""

from __future__ import annotations

from typing import Annotated

import typer

from modalrun.cli.run_argument import Run, interactive
from modalrun.output.spinner import Spinner


def stop(
    run: Run = None,
    *,
    force: Annotated[
        bool,
        typer.Option(
            "--force/--graceful",
            help="End its sandboxes now, or (the default) start nothing new and let running steps"
            " finish.",
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Return when it is true, or at once.")
    ] = True,
) -> None:
    """Stop a run, from any machine; it ends as 'stopped' in ZenML.

    A run that has ended already is left as it is. Exit codes: 0 stopped or ended already, 3 not
    authenticated, 4 no such run, 8 connection lost, 130 interrupted while waiting.
    """
    from modalrun.control import stop as stopping
    from modalrun.observe import status
    from modalrun.run import records
    from modalrun.zenml_api import process

    wanted = records.run_argument(run, interactive=interactive())
    with Spinner("Reading the run") as spinner, process.zenml_session():
        found = status.resolve(wanted)
        spinner.show("Stopping the run")

        def say(text: str) -> None:
            spinner.end()
            typer.echo(text, err=True)
            spinner.show("Stopping the run")

        stopped = stopping.stop(found.id, force=force, wait=wait, say=say)
    typer.echo(stopped.headline, err=True)
