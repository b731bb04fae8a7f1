"""`modalrun logs`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from enum import Enum
from typing import Annotated, Literal

import typer

from modalrun.cli import completion
from modalrun.cli.options import moment_option
from modalrun.cli.run_argument import END_OF_COMMAND, Interruption, Run, interactive
from modalrun.errors import UsageError
from modalrun.output.terminal import writer
from modalrun.output.terminal.spinner import Spinner


class Source(str, Enum):
    """Where a line was printed. Typer takes no list of literals."""

    stdout = "stdout"
    stderr = "stderr"
    system = "system"


def logs(
    run: Run = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for more lines until the run has ended.")
    ] = False,
    step: Annotated[
        list[str] | None,
        typer.Option(
            "--step",
            "-s",
            metavar="NAME",
            autocompletion=completion.steps,
            help="Only lines of this step; '*', '?' and '[abc]' match as in file names."
            " Repeatable.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Only lines since then: '10m' (ago) or RFC 3339."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only lines before then.")
    ] = None,
    tail: Annotated[
        int | None,
        typer.Option("--tail", "-n", min=0, metavar="N", help="Only the newest N lines."),
    ] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", "-t", help="Begin each line with its time (UTC).")
    ] = False,
    source: Annotated[
        list[Source] | None, typer.Option(help="Only lines from this source. Repeatable.")
    ] = None,
    search: Annotated[
        str, typer.Option(metavar="TEXT", help="Only lines that contain this text.")
    ] = "",
    driver: Annotated[
        bool, typer.Option("--driver", help="The output of the run's driver, not of its steps.")
    ] = False,
    output: Annotated[
        Literal["text", "jsonl"],
        typer.Option("--output", "-o", help="Format of the lines: text, or one JSON object each."),
    ] = "text",
) -> None:
    """Show the output of a run's steps.

    Each line is labelled with its step. The lines of a run that has ended come from Modal's history
    or, once that has expired, from the logs that ZenML has stored. With --follow, Ctrl-C ends
    this command, not the run.
    """
    if driver and step:
        raise UsageError("--driver and --step exclude each other.")
    with Interruption(END_OF_COMMAND if follow else "") as interruption:
        from modalrun.observe.log_source import find
        from modalrun.observe.logs import LogRequest, read
        from modalrun.run.log_lines import LineFilter

        begin, end = moment_option(since, "--since"), moment_option(until, "--until")
        line_filter = LineFilter(
            steps=tuple(step or ()),
            sources=tuple(one.value for one in source or ()),
            since=begin.timestamp() if begin else None,
            until=end.timestamp() if end else None,
            search=search,
            driver=driver,
        )
        needs_times = timestamps or since is not None or until is not None
        request = LogRequest(line_filter, follow=follow, tail=tail, times=needs_times)
        jsonl = output == "jsonl"
        with ExitStack() as zenml, Spinner("Looking for the run", quiet=jsonl) as spinner:

            def say(text: str) -> None:
                spinner.end()
                sys.stdout.flush()
                writer.err(text)

            found = find(run, interactive=interactive(), zenml=zenml, say=say, follow=follow)
            spinner.end()
            from modalrun.output.log_text import printer

            write = printer(jsonl=jsonl, timestamps=timestamps)
            spinner.show("Waiting for lines" if follow else "Reading the lines")

            if follow:
                interruption.text = (
                    f"Detached. To continue: 'modalrun logs --follow {found.run_id}'."
                )
            silent = True
            for batch in read(found, request, say):
                if batch:
                    silent = False
                    spinner.end()
                    write(batch)
            if silent:
                say("The run's driver has no output." if driver else "No output to show.")
