"""`modalrun compile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modalrun.cli.options import Given, Spec, shared
from modalrun.output.spinner import Spinner


@shared
def compile_(
    spec: Spec,
    *,
    given: Given,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The deployment file to write.")
    ],
) -> None:
    """Compile a pipeline to a file that 'plan' and 'submit' take instead of a run spec.

    'plan' on it needs no ZenML server. Sandbox settings can be overridden without compiling again.
    The file holds what ZenML stores with a deployment, environment variables of the pipeline
    included, and is readable by its owner alone.
    """
    checked = given.load(spec)

    from modalrun.submit.prepare import compile_to_file

    with Spinner("Compiling"):
        compile_to_file(checked, output)
    typer.echo(f"Wrote {output}", err=True)
