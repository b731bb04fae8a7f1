"""`modalrun compile`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from modalrun.cli.options import Given, ToCompile, shared
from modalrun.errors import UsageError
from modalrun.output.terminal import writer
from modalrun.output.terminal.spinner import Spinner


@shared
def compile_(
    spec: ToCompile = None,
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

    if output.suffix != ".json":
        # By its name the other commands know it from a run spec.
        raise UsageError(
            f"--output {output}: the name of a deployment file ends in '.json'.",
            effect="Nothing was written.",
            hint=f"As in '--output {output.parent / (output.stem or 'deployment')}.json'.",
        )

    from modalrun.plan.stack import wrong_stack
    from modalrun.submit.prepare import compile_to_file

    with Spinner("Compiling"):
        found, outside = compile_to_file(checked, output)
    writer.err(f"Wrote {output}")
    for note in found.stack_notes:
        writer.err(f"note: {note}")
    command = ["modalrun", "submit", str(output)]
    if found.problems:
        error = wrong_stack(found.stack, found.problems)
        writer.err(f"note: {error.problem}\n  {error.hint}")
        command += ["--target", "local"]
    if outside is not None:
        writer.err(
            "note: the source root is not below the file's folder, so whoever uses the file has to"
            " name it"
        )
        command += ["--source-root", str(outside)]
    writer.err(f"To run it: {shlex.join(command)}")
