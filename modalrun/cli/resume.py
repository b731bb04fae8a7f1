"""`modalrun resume`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from modalrun.cli.options import Interrupt, exit_with, on_interrupt
from modalrun.cli.run_argument import END_OF_COMMAND, Interruption, Run, interactive
from modalrun.util.paths import checked_path


def resume(
    run: Run = None,
    *,
    source_root: Annotated[
        Path | None,
        typer.Option(
            "--source-root",
            metavar="FOLDER",
            help="Folder of the pipeline's source tree; without it, the ZenML repository that the"
            " current folder is in, or the current folder. The submitted files must not have"
            " changed; new files are left out.",
        ),
    ] = None,
    sync: Annotated[
        bool,
        typer.Option(
            "--sync/--async", help="Wait until the run has ended, or return once it is accepted."
        ),
    ] = True,
    interrupt: Interrupt = None,
) -> None:
    """Resume a run that has lost its driver, or was paused.

    Runs in 'mode: per_step' can be resumed, and paused runs in either mode. Finished steps are not
    run again, running steps are followed, and the rest is run. A run that has ended, or whose
    driver runs, is left as it is (exit code 0).

    Exit codes: as for 'submit'; 2 also if the source tree is missing or has changed.
    """
    with Interruption("Interrupted. No run was resumed.") as interruption:
        from modalrun.control import resume as resuming
        from modalrun.control.stop import by_force
        from modalrun.observe import attach, status
        from modalrun.observe.outcome import accepted
        from modalrun.output import make_reporter
        from modalrun.run import records
        from modalrun.spec.spec_argument import source_root_of
        from modalrun.zenml_api import process

        text = records.run_argument(run, interactive=interactive())
        with make_reporter() as shown, contextlib.ExitStack() as zenml:
            # ZenML takes seconds to import.
            shown.phase("Reading the run")
            zenml.enter_context(process.zenml_session())
            found = status.resolve(text)
            folder = source_root_of(Path.cwd())
            if source_root:
                folder = checked_path(source_root, "--source-root").resolve()
            # It says itself what has become of the run.
            interruption.text = ""
            resumed = resuming.resume(found.id, shown, source_root=folder)
            if isinstance(resumed, str):
                shown.say(resumed)
                return
            if sync:
                outcome = attach.follow(resumed, shown, on_interrupt(interrupt), stop=by_force)
            else:
                interruption.text = END_OF_COMMAND
                outcome = accepted(resumed)
            shown.summary(outcome)
    exit_with(outcome)
