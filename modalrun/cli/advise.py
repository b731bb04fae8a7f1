"""`modalrun advise`."""

from __future__ import annotations

from typing import Annotated

import typer

from modalrun.cli import completion
from modalrun.cli.options import Output
from modalrun.cli.run_argument import interactive
from modalrun.errors import UsageError
from modalrun.output.terminal import writer
from modalrun.output.terminal.spinner import Spinner


def advise(
    of: Annotated[
        str | None,
        typer.Argument(
            metavar="PIPELINE|RUN",
            autocompletion=completion.pipelines,
            help="A pipeline's name, or one run: its id, the beginning of one, or its name."
            " 'latest', on a terminal the default, is the pipeline that ran last.",
        ),
    ] = None,
    *,
    runs: Annotated[
        int, typer.Option("--runs", "-n", min=1, max=100, help="How many runs of a pipeline.")
    ] = 5,
    write: Annotated[
        bool,
        typer.Option("--write", help="Print the settings to paste into the run spec, as YAML."),
    ] = False,
    output: Output = "text",
) -> None:
    """Advise what steps should ask for, by what they have used.

    A suggestion is a quarter above the highest peak of the runs, rounded up. What it saves is
    counted at Modal's list prices. Steps that took less than a second are not measured.
    """
    if write and output == "json":
        raise UsageError("--write and '--output json' exclude each other.")

    from modalrun.observe.advice import read_advice
    from modalrun.run.records import run_argument
    from modalrun.zenml_api import process

    named = run_argument(of, interactive=interactive())
    with Spinner("Reading runs", quiet=output == "json"), process.zenml_session():
        advice = read_advice(named, runs)

    from modalrun.output import advice_text

    if write:
        if text := advice_text.as_settings(advice):
            writer.out(text.rstrip())
        else:
            writer.err("There is nothing to change.")
    elif output == "json":
        writer.out_json(advice_text.as_json(advice))
    elif advice.steps or advice.unmeasured or advice.missing:
        advice_text.print_advice(advice)
    else:
        writer.err("None of these runs has run a step.")
