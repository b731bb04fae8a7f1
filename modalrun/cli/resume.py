"""`modalrun resume`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from modalrun.cli.run_argument import Run, interactive
from modalrun.cli.submit import InterruptOption, on_interrupt_option


def resume(
    run: Run = None,
    *,
    source_root: Annotated[
        Path | None,
        typer.Option(
            "--source-root",
            metavar="FOLDER",
            help="Where the pipeline's source tree is, if not where it was. The files that were"
            " submitted must not have changed; new ones stay behind.",
        ),
    ] = None,
    sync: Annotated[
        bool, typer.Option("--sync/--async", help="Wait for the end of the run, or don't.")
    ] = True,
    on_interrupt: Annotated[
        InterruptOption | None,
        typer.Option("--on-interrupt", help="What Ctrl-C and SIGTERM do, as for 'submit'."),
    ] = None,
) -> None:
    """Go on with a 'per_step' run whose driver is gone.

    Finished steps are not run again, steps that still run are watched on, and the rest is run. A
    run that is over, or whose driver runs, is left as it is (exit 0).

    Exit codes: as for 'submit'; 2 also where the source tree is not there or has changed.
    """
    from modalrun.control.resume import resume as give_another_driver
    from modalrun.control.stop import by_force
    from modalrun.observe import attach, status
    from modalrun.observe.outcome import accepted
    from modalrun.output import reporter
    from modalrun.run import records
    from modalrun.zenml_api import process

    wanted = records.run_argument(run, interactive=interactive())
    with reporter() as shown, contextlib.ExitStack() as zenml:
        # ZenML takes seconds to import.
        shown.phase("Reading the run")
        zenml.enter_context(process.zenml_session())
        found = status.resolve(wanted)
        resumed = give_another_driver(found.id, shown, source_root=source_root)
        if isinstance(resumed, str):
            shown.say(resumed)
            return
        if sync:
            outcome = attach.follow(
                resumed, shown, on_interrupt_option(on_interrupt), stop=by_force
            )
        else:
            outcome = accepted(resumed)
        shown.summary(outcome)
    if outcome.accepted:
        typer.echo(outcome.run_id)
    raise typer.Exit(outcome.exit_code)
