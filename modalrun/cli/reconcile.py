"""`modalrun reconcile`."""

from __future__ import annotations

from typing import Annotated

import typer

from modalrun.cli.run_argument import Run, interactive
from modalrun.output.spinner import Spinner


def reconcile(
    run: Run = None,
    *,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Settle the record even if it can't be found out whether the sandbox still runs.",
        ),
    ] = False,
) -> None:
    """Record the end of a run in ZenML whose sandbox is gone.

    The run and its unfinished steps become 'failed', or 'stopped' if somebody had asked ZenML to
    stop the run. A run that still runs, or is over already, is left as it is.
    """
    from modalrun.control.reconcile import reconcile as record_end
    from modalrun.observe import status
    from modalrun.run import records
    from modalrun.zenml_api import process

    wanted = records.run_argument(run, interactive=interactive())
    with Spinner("Reading the run") as spinner, process.zenml_session():
        found = status.resolve(wanted)
        done = record_end(status.read_status(found.id), force=force)
        spinner.end()

        from modalrun.output.status_text import print_status

        print_status(done.status)
    typer.echo(done.text, err=True)
