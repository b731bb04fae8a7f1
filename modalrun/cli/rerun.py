"""`modalrun rerun`."""

from __future__ import annotations

from typing import Annotated

import typer

from modalrun.cli import completion
from modalrun.cli.options import Given, Interrupt, MaxCost, amount, exit_with, on_interrupt, shared
from modalrun.cli.run_argument import Interruption, Run, interactive
from modalrun.errors import NOTHING_SUBMITTED


@shared
def rerun(
    run: Run = None,
    *,
    given: Given,
    begin: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="STEP",
            autocompletion=completion.steps,
            help="Run this step and all that come after it, although they have succeeded."
            " Repeatable.",
        ),
    ] = None,
    new_code: Annotated[
        bool,
        typer.Option(
            "--new-code",
            help="Take the source tree as it is now, and compile the pipeline anew. A step whose"
            " own code has changed runs again.",
        ),
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be skipped and what would run.")
    ] = False,
    max_cost: MaxCost = None,
    interrupt: Interrupt = None,
) -> None:
    """Run a pipeline again, without the steps that have succeeded.

    A new run takes their results, whatever the cache settings say, and runs what failed, was
    stopped, did not run, or comes after such a step. It is compiled from the same files, which must
    be as they were (--source-root names their folder), or anew with --new-code. Steps that depend
    on what --param or --set changes run again.

    Exit codes: as for 'submit'; 2 also if the run is not over, has nothing to
    run again, or its files have changed.
    """
    with Interruption("" if plan else NOTHING_SUBMITTED) as interruption:
        limit = amount(max_cost)

        from modalrun.control import rerun as rerunning
        from modalrun.control.stop import by_force
        from modalrun.observe import status
        from modalrun.output import make_reporter
        from modalrun.output.terminal import writer
        from modalrun.run import records
        from modalrun.submit import submission
        from modalrun.zenml_api import process

        text = records.run_argument(run, interactive=interactive())
        with make_reporter() as shown:
            # ZenML takes seconds to import.
            shown.phase("Reading the run")
            with process.zenml_session():
                spec = rerunning.spec_of_rerun(
                    status.resolve(text).id,
                    given.overrides,
                    begin=begin or (),
                    target=given.target,
                    new_code=new_code,
                )
                if plan:
                    found, told = rerunning.plan_rerun(spec)
                    for line in (*found.lines, *told):
                        writer.out(line, fit=True)
                    return
                # It says itself what has become of the run.
                interruption.text = ""
                outcome = submission.submit(
                    spec, shown, stop=by_force, max_cost=limit, on_interrupt=on_interrupt(interrupt)
                )
            shown.summary(outcome)
    exit_with(outcome)
