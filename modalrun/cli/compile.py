"""`modalrun compile`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from modalrun.cli.options import Given, Spec, shared
from modalrun.output import writer
from modalrun.output.spinner import Spinner


@shared
def compile_(
    spec: Spec = None,
    *,
    given: Given,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Deployment file to write.")
    ],
) -> None:
    """Compile a pipeline to a file for 'plan' and 'submit'.

    They take the deployment file in place of a run spec. 'plan' then needs no ZenML server, and
    options override sandbox settings without compiling again. The file contains what ZenML stores
    with a deployment, including the pipeline's environment variables; only its owner can read it.
    """
    checked = given.load(spec)

    from modalrun.submit.prepare import compile_to_file

    with Spinner("Compiling"):
        note = compile_to_file(checked, output)
    writer.err(f"Wrote {output}")
    # The target is not compiled in.
    target = " --target local" if checked.target == "local" else ""
    writer.err(f"To run it: modalrun submit {shlex.quote(str(output))}{target}")
    if note is not None:
        writer.err(f"note: {note}")
