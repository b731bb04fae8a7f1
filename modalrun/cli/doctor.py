"""`modalrun doctor`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from modalrun.cli.options import Output, OutputOption, Target
from modalrun.output.spinner import Spinner


def doctor(
    spec: Annotated[
        Path | None,
        typer.Argument(metavar="[SPEC]", help="A run spec or deployment file, checked as well."),
    ] = None,
    *,
    target: Target = None,
    output: Output = OutputOption.text,
) -> None:
    """Check everything that a run needs: versions, ZenML, the stack, Modal, and a run spec.

    Nothing is created but what is removed again. Without a SPEC it is the active stack and, unless
    --target says otherwise, Modal's cloud that are checked.

    Exit codes: 0 without a problem, else that of the first one: 2 a version, the run spec or the
    stack is wrong, 3 not authenticated, 4 not found, 8 a server is not there.
    """
    from modalrun.doctor.examination import examine

    # A check that never ends may still hold what stdout is redirected to.
    stdout = sys.stdout
    with Spinner("Checking", quiet=output is OutputOption.json):
        report = examine(spec, target.value if target else None)

    from modalrun.output.doctor_text import as_json, print_report

    with redirect_stdout(stdout):
        if output is OutputOption.json:
            typer.echo(as_json(report))
        else:
            print_report(report)
    raise typer.Exit(report.exit_code)
