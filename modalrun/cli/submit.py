"""`modalrun submit`."""

from __future__ import annotations

import sys
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from modalrun.cli.options import Given, Spec, shared
from modalrun.errors import UsageError

if TYPE_CHECKING:
    from modalrun.observe.interrupt_prompt import OnInterrupt


class InterruptOption(str, Enum):
    """What Ctrl-C and SIGTERM do."""

    stop = "stop"
    detach = "detach"


@shared
def submit(
    spec: Spec,
    *,
    given: Given,
    max_cost: Annotated[
        str | None,
        typer.Option(
            "--max-cost",
            metavar="USD",
            help="Refuse the run (exit 10) if it can cost more: timeout x price.",
        ),
    ] = None,
    on_interrupt: Annotated[
        InterruptOption | None,
        typer.Option(
            "--on-interrupt",
            help="What Ctrl-C and SIGTERM do: end the run by force, or leave it to itself. Without"
            " it, Ctrl-C on a terminal asks, and where there is none both end the run.",
        ),
    ] = None,
) -> None:
    """Run a pipeline on Modal and follow it to its end.

    With --async (or 'synchronous: false') it returns as soon as Modal has accepted the run, and
    prints the run's id on stdout; 'status', 'logs --follow' and 'stop' take it from there.

    Exit codes: 0 completed (--async: accepted), 1 the run failed, 2 the command line or the run
    spec is wrong, 3 not authenticated, 4 not found, 5 no capacity, 6 timed out, 7 stopped or
    terminated, 8 connection lost, 9 outcome of the submission unknown, 10 over the cost limit, 130
    and 143 interrupted.
    """
    limit = _amount(max_cost)
    checked = given.load(spec)

    from modalrun.control.stop import by_force
    from modalrun.output import reporter
    from modalrun.submit.submission import submit as run_to_its_end

    with reporter() as shown:
        outcome = run_to_its_end(
            checked,
            shown,
            stop=by_force,
            max_cost=limit,
            on_interrupt=on_interrupt_option(on_interrupt),
        )
        shown.summary(outcome)
    if outcome.accepted:
        typer.echo(outcome.run_id)
    raise typer.Exit(outcome.exit_code)


def on_interrupt_option(option: InterruptOption | None) -> OnInterrupt:
    """What signals do; without the option it depends on where this runs."""
    if option is not None:
        return option.value
    # A question needs somebody who sees it and a keyboard to answer on.
    return "ask" if sys.stdin.isatty() and sys.stderr.isatty() else "stop"


def _amount(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        amount = Decimal(text.removeprefix("$"))
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise UsageError(f"--max-cost {text}: this is not an amount of USD.", hint="As in '5'.")
    return amount
