"""`modalrun status`."""

from __future__ import annotations

from typing import Annotated

import typer

from modalrun.cli.options import Format
from modalrun.cli.run_argument import END_OF_COMMAND, Interruption, Run, resolved
from modalrun.output.terminal import writer


def status(
    run: Run = None,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep showing the run until it has ended.")
    ] = False,
    exit_status: Annotated[
        bool,
        typer.Option(
            "--exit-status",
            help="Exit with the code that 'submit' would end with; 8 while the run has not ended."
            " For a failed run, this also asks Modal.",
        ),
    ] = False,
    timeline: Annotated[
        bool,
        typer.Option(
            "--timeline", help="Also draw when each step waited, started and ran; text only."
        ),
    ] = False,
    output: Annotated[
        Format,
        typer.Option(
            "--output",
            "-o",
            help="Format of the result: text, or one JSON object, with --watch at the end.",
        ),
    ] = "text",
) -> None:
    """Show a run: its state, where it runs, and its steps.

    ZenML and Modal are both read. A run that ZenML records as running and whose sandbox is gone is
    'lost'; 'modalrun reconcile' corrects its record. Ctrl-C ends this command, not the run.
    """
    with Interruption(END_OF_COMMAND if watch else ""):
        from modalrun.observe import status as runs
        from modalrun.observe.watch import watch as follow
        from modalrun.run.status import STILL_GOING, RunStatus

        as_text = output == "text"
        with resolved(run, quiet=not as_text) as (found, spinner):
            if not watch:
                view = runs.read_status(found.id, with_exit_code=exit_status)
            elif as_text:
                from modalrun.output.status_text import LiveStatus

                with LiveStatus() as live:

                    def show(view: RunStatus) -> None:
                        spinner.end()
                        live.show(view)

                    view = follow(found, show, with_exit_code=exit_status)
            else:
                view = follow(found, lambda _: None, with_exit_code=exit_status)
            spinner.end()
            if as_text and not watch:
                from modalrun.output.status_text import print_status

                print_status(view)
            if as_text and timeline:
                from modalrun.output.status_text import print_timeline

                print_timeline(runs.read_timeline(view))
        if not as_text:
            from modalrun.output.status_json import as_json

            writer.out_json(as_json(view))
        if exit_status:
            raise typer.Exit(STILL_GOING if view.exit_code is None else view.exit_code)
