"""`modalrun doctor`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from modalrun.cli.options import Output, Target
from modalrun.output.terminal import writer
from modalrun.output.terminal.spinner import Spinner


def doctor(
    spec: Annotated[
        Path | None,
        typer.Argument(
            metavar="SPEC", help="A run spec, a pipeline or a deployment file to check as well."
        ),
    ] = None,
    *,
    target: Target = None,
    output: Output = "text",
) -> None:
    """Check everything that a run needs.

    The checks cover versions, ZenML, the stack, Modal and, with SPEC, a run spec. Without SPEC they
    use the active stack and, without --target, Modal's cloud. Whatever a check creates, it removes.

    Exit codes: 0 no problem, else the code of the first problem: 2 a version, the run spec or the
    stack is wrong, 3 not authenticated, 4 not found, 8 a server can't be reached.
    """
    from modalrun.doctor.examination import examine

    # A check that never ends may keep stdout redirected.
    stdout = sys.stdout
    with Spinner("Checking", quiet=output == "json"):
        report = examine(spec, target)

    from modalrun.output.doctor_text import as_json, print_report

    with redirect_stdout(stdout):
        if output == "json":
            writer.out_json(as_json(report))
        else:
            print_report(report)
    raise typer.Exit(report.exit_code)
