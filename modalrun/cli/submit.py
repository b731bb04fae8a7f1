"""`modalrun submit`."""

from __future__ import annotations

from typing import Annotated

import typer

from modalrun.cli.options import (
    Given,
    Interrupt,
    MaxCost,
    Spec,
    amount,
    exit_with,
    on_interrupt,
    shared,
)
from modalrun.cli.run_argument import Interruption
from modalrun.errors import NOTHING_SUBMITTED


@shared
def submit(
    spec: Spec = None,
    *,
    given: Given,
    max_cost: MaxCost = None,
    interrupt: Interrupt = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Compile the pipeline although nothing has changed since an earlier submission.",
        ),
    ] = False,
) -> None:
    """Run a pipeline on Modal and follow it to its end.

    With --async (or 'synchronous: false') the command returns as soon as Modal has accepted the
    run, and prints the run's id on stdout. Continue with 'status', 'logs --follow' and 'stop'.

    \b
    Exit codes:
      0   completed; with --async: accepted
      1   the run failed
      2   the command line or the run spec is wrong
      3   not authenticated
      4   not found
      5   no capacity
      6   timed out
      7   stopped or terminated
      8   connection lost
      9   outcome of the submission unknown
      10  over the cost limit
      70  an error in modalrun itself
      129, 130 and 143 interrupted
      141 the reader of the output has gone
    """
    with Interruption(NOTHING_SUBMITTED) as interruption:
        limit = amount(max_cost)
        checked = given.load(spec)

        from modalrun.control.stop import by_force
        from modalrun.output import make_reporter
        from modalrun.submit import submission

        with make_reporter() as shown:
            # It says itself what has become of the run.
            interruption.text = ""
            outcome = submission.submit(
                checked,
                shown,
                stop=by_force,
                max_cost=limit,
                on_interrupt=on_interrupt(interrupt),
                fresh=fresh,
            )
            shown.summary(outcome)
    exit_with(outcome)
