"""`modalrun status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from modalrun.cli.options import OutputOption
from modalrun.cli.run_argument import Run, interactive
from modalrun.output.spinner import Spinner

if TYPE_CHECKING:
    from modalrun.run.records import RunRecord
    from modalrun.run.status import RunStatus


def status(
    run: Run = None,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on until the run is over.")
    ] = False,
    exit_status: Annotated[
        bool,
        typer.Option(
            "--exit-status",
            help="End with the exit code of the run: 0, 1, 6 or 7 as 'submit' does; 8 while it is"
            " not over. For a run that failed, this asks Modal too.",
        ),
    ] = False,
    output: Annotated[
        OutputOption,
        typer.Option(
            "--output", "-o", help="How to print it; with --watch, json is the end alone."
        ),
    ] = OutputOption.text,
) -> None:
    """Show a run: its state, where it runs, and each of its steps.

    ZenML and Modal are read together: a run that ZenML records as running and whose sandbox is
    gone is 'lost', and 'modalrun reconcile' sets its record right. Ctrl-C only ends the looking.
    """
    from modalrun.observe import status as runs
    from modalrun.run import records
    from modalrun.zenml_api import process

    wanted = records.run_argument(run, interactive=interactive())
    quiet = output is OutputOption.json
    with Spinner("Reading the run", quiet=quiet) as spinner, process.zenml_session():
        found = runs.resolve(wanted)
        if watch:
            view = _watch(found, output, spinner, with_exit_code=exit_status)
        else:
            view = runs.read_status(found.id, with_exit_code=exit_status)
            spinner.end()
            if output is OutputOption.text:
                from modalrun.output.status_text import print_status

                print_status(view)
    if output is OutputOption.json:
        from modalrun.output.status_json import as_json

        typer.echo(as_json(view))
    if exit_status:
        raise typer.Exit(_exit_code(view))


def _watch(
    found: RunRecord, output: OutputOption, spinner: Spinner, *, with_exit_code: bool
) -> RunStatus:
    from modalrun.observe.watch import watch

    if output is OutputOption.json:
        return watch(found, lambda _: None, with_exit_code=with_exit_code)
    from modalrun.output.status_text import LiveStatus

    with LiveStatus() as live:

        def show(view: RunStatus) -> None:
            spinner.end()
            live.show(view)

        return watch(found, show, with_exit_code=with_exit_code)


def _exit_code(view: RunStatus) -> int:
    from modalrun.run.status import STILL_GOING

    return STILL_GOING if view.exit_code is None else view.exit_code
