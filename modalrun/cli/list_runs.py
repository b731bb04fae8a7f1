"""`modalrun list`."""

from __future__ import annotations

from typing import Annotated

import typer

from modalrun.cli import completion
from modalrun.cli.options import Output, moment_option
from modalrun.output.terminal import writer
from modalrun.output.terminal.spinner import Spinner
from modalrun.util.text import checked_utf8


def list_(
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            autocompletion=completion.states,
            help="Only runs in this state, such as 'failed'. Repeatable.",
        ),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            "--pipeline",
            metavar="NAME",
            autocompletion=completion.pipelines,
            help="Only runs of this pipeline.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="WHEN", help="Only runs since then: '1h' or '2d' (ago), or a date."
        ),
    ] = None,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most runs to show.")] = 20,
    everybodys: Annotated[
        bool, typer.Option("--all", help="Also runs that modalrun did not start.")
    ] = False,
    output: Output = "text",
) -> None:
    """List the runs that modalrun has started, newest first.

    The cost is an estimate: the time of each sandbox at Modal's list prices for its request. '-' is
    nothing: a run on the local Modal server, or without a sandbox of its own. '?' is not known.
    """
    from modalrun.observe import list_runs
    from modalrun.zenml_api import process
    from modalrun.zenml_api.gateway import ZENML

    states = list_runs.check_states(state or ())
    if pipeline is not None:
        checked_utf8(pipeline, "--pipeline")
    begin = moment_option(since, "--since")
    with Spinner("Reading runs", quiet=output == "json"), process.zenml_session():
        newest = ZENML.newest_runs(
            limit=limit, states=states, pipeline=pipeline, since=begin, everybodys=everybodys
        )
        if pipeline is not None and not newest:
            list_runs.check_pipeline(pipeline)
        found = list_runs.with_costs(newest)

    from modalrun.output import run_list

    if output == "json":
        writer.out_json(run_list.as_json(found))
    elif found:
        run_list.print_list(found)
    else:
        writer.err("No runs.")
