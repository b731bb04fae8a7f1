"""`modalrun list`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from modalrun.cli.options import Output, OutputOption
from modalrun.output.spinner import Spinner


def list_(
    state: Annotated[
        list[str] | None,
        typer.Option("--state", help="Only runs in this state, as 'failed'. Repeatable."),
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", metavar="NAME", help="Only runs of this pipeline.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="WHEN", help="Only runs since '1h' or '2d' ago, or since a date."
        ),
    ] = None,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 20,
    everybodys: Annotated[
        bool, typer.Option("--all", help="Also runs that modalrun did not start.")
    ] = False,
    output: Output = OutputOption.text,
) -> None:
    """List the runs that modalrun has started, newest first.

    The cost is an estimate: the time of each sandbox by Modal's list prices for what it asked for.
    """
    from modalrun.observe import list_runs
    from modalrun.util.timeparse import moment
    from modalrun.zenml_api import process

    states = list_runs.check_states(state or ())
    begin = moment(since, option="--since", now=datetime.now().astimezone()) if since else None
    with Spinner("Reading runs", quiet=output is OutputOption.json), process.zenml_session():
        found = list_runs.list_runs(
            limit=limit, states=states, pipeline=pipeline, since=begin, everybodys=everybodys
        )

    from modalrun.output import run_list

    if output is OutputOption.json:
        typer.echo(run_list.as_json(found))
    elif found:
        run_list.print_list(found)
    else:
        typer.echo("No runs.", err=True)
