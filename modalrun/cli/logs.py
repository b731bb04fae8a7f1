"""`modalrun logs`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from datetime import datetime
from enum import Enum
from typing import Annotated

import typer

from modalrun.cli.run_argument import Run, interactive
from modalrun.errors import UsageError
from modalrun.output.spinner import Spinner


class SourceOption(str, Enum):
    """Where a line was printed to."""

    stdout = "stdout"
    stderr = "stderr"
    system = "system"


class LogOutputOption(str, Enum):
    """How lines are printed."""

    text = "text"
    jsonl = "jsonl"


def logs(
    run: Run = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run is over.")
    ] = False,
    step: Annotated[
        list[str] | None,
        typer.Option(
            "--step",
            "-s",
            metavar="NAME",
            help="Only this step's lines; '*', '?' and '[abc]' as in file names.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Only from then on: '10m' (ago) or RFC 3339."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only what was printed before then.")
    ] = None,
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail", "-n", min=0, metavar="N", help="Only the newest lines, so many at most."
        ),
    ] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", "-t", help="Begin each line with its time (UTC).")
    ] = False,
    source: Annotated[
        list[SourceOption] | None, typer.Option(help="Only what was printed there.")
    ] = None,
    search: Annotated[
        str, typer.Option(metavar="TEXT", help="Only lines that hold this text.")
    ] = "",
    driver: Annotated[
        bool, typer.Option("--driver", help="What the run's driver says, instead of the steps.")
    ] = False,
    output: Annotated[
        LogOutputOption, typer.Option(help="'jsonl' is one JSON object a line.")
    ] = LogOutputOption.text,
) -> None:
    """Show what the steps of a run have printed, each line marked with its step.

    A run that is over is read from Modal's history, and where that has passed, from the step logs
    that ZenML has stored. With --follow, Ctrl-C only ends the looking.
    """
    if driver and step:
        raise UsageError("--driver and --step exclude each other.")
    from modalrun.observe.log_source import find
    from modalrun.observe.logs import LogRequest, read
    from modalrun.run.log_lines import LineFilter

    line_filter = LineFilter(
        steps=tuple(step or ()),
        sources=tuple(one.value for one in source or ()),
        since=_moment(since, "--since"),
        until=_moment(until, "--until"),
        search=search,
        driver=driver,
    )
    needs_times = timestamps or since is not None or until is not None
    request = LogRequest(line_filter, follow=follow, tail=tail, times=needs_times)
    jsonl = output is LogOutputOption.jsonl
    with ExitStack() as zenml, Spinner("Looking for the run", quiet=jsonl) as spinner:
        found = find(run, interactive=interactive(), zenml=zenml)
        spinner.end()
        from modalrun.output.log_text import printer

        write = printer(jsonl=jsonl, timestamps=timestamps)
        spinner.show("Waiting for lines" if follow else "Reading the lines")

        def say(text: str) -> None:
            spinner.end()
            _say(text)

        try:
            for batch in read(found, request, say):
                if batch:
                    spinner.end()
                    write(batch)
        except KeyboardInterrupt:
            if follow:
                say(f"Detached. Go on with 'modalrun logs --follow {found.run_id}'.")
            raise


def _moment(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    from modalrun.util.timeparse import moment

    return moment(text, option=option, now=datetime.now().astimezone()).timestamp()


def _say(text: str) -> None:
    from modalrun.output.sanitize import harmless

    sys.stdout.flush()
    typer.echo(harmless(text, colours=False), err=True)
