"""`modalrun smoke`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from modalrun.cli.options import Output, Target, confirmed
from modalrun.output.terminal import writer
from modalrun.output.terminal.spinner import Spinner


def smoke(
    *,
    gpu: Annotated[
        str | None, typer.Option(help="Try a GPU sandbox too, of a type such as 'T4'.")
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(
            metavar="SPEC",
            help="Take stack, environment, image and region from a run spec, instead of the active"
            " stack and the defaults.",
        ),
    ] = None,
    target: Target = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it begins.")] = False,
    output: Output = "text",
) -> None:
    """Try on Modal what a run needs, in small sandboxes.

    It takes about two minutes and costs a few cents. It builds the image, starts small sandboxes
    and looks how they begin, print and end. Each line is 'ok', 'differs' (and what modalrun does
    about it) or 'broken' (and what to do). Everything that it makes is removed, but for the image,
    which your runs use.

    Exit codes: 0 nothing is broken, 1 something is, 2 the run spec or the stack is wrong, or
    nobody can be asked, 3 not authenticated, 4 not found, 8 a server can't be reached.
    """
    from modalrun.doctor.smoke import planned, read_spec
    from modalrun.errors import UsageError
    from modalrun.modal_api.configuration import local_server_note
    from modalrun.output.smoke_text import as_json, estimate, print_report

    # The file of a deployment has a target, too.
    checked = read_spec(spec, target)
    asks = not yes and checked.target == "modal"
    if asks and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "'modalrun smoke' asks before it creates anything, and here nobody can be asked.",
            effect="Nothing was created.",
            hint="Add '--yes'. It costs a few cents.",
        )

    stdout = sys.stdout
    with redirect_stdout(sys.stderr), planned(checked, gpu, has_spec=spec is not None) as job:
        if note := local_server_note(job.plan.target):
            writer.err(f"note: {note}")
        writer.err(estimate(job))
        if asks and not confirmed("Continue?"):
            writer.err("Nothing was created.")
            raise typer.Abort
        with Spinner("Connecting", quiet=output == "json") as spinner:
            report = job.run(spinner.show, writer.err)
    with redirect_stdout(stdout):
        if output == "json":
            writer.out_json(as_json(report))
        else:
            print_report(report)
    raise typer.Exit(report.exit_code)
