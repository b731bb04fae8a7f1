"""`modalrun reconcile`."""

from __future__ import annotations

from typing import Annotated

import typer

from modalrun.cli.run_argument import Run, resolved
from modalrun.output.terminal import writer


def reconcile(
    run: Run = None,
    *,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Record the end even if Modal can't confirm that the sandbox is gone."
        ),
    ] = False,
) -> None:
    """Record in ZenML the end of a run whose sandbox is gone.

    The run and its unfinished steps become 'failed', or 'stopped' if ZenML was asked to stop the
    run. A run that still runs, or has ended already, is left as it is.
    """
    from modalrun.control import reconcile as reconciling
    from modalrun.observe import status

    with resolved(run) as (found, spinner):
        done = reconciling.reconcile(status.read_status(found.id), force=force)
        spinner.end()

        from modalrun.output.status_text import print_status

        print_status(done.status)
    writer.err(done.text)
