"""`modalrun init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modalrun.cli.options import TargetName
from modalrun.output.terminal import writer


def init(
    pipeline: Annotated[
        str | None,
        typer.Argument(
            metavar="PIPELINE",
            help="Pipeline for the run spec, as in training.py:training or training.training. By"
            " default the only one below this folder.",
        ),
    ] = None,
    *,
    from_stack: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="STACK", help="Stack to start from; by default the active one."
        ),
    ] = None,
    target: Annotated[TargetName, typer.Option(help="Where the runs of the stack go.")] = "modal",
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Name of the new orchestrator and stack. Default: 'modalrun', or 'modalrun_local'"
            " for the target 'local'.",
        ),
    ] = None,
    spec: Annotated[Path, typer.Option("--spec", metavar="FILE", help="Run spec to write.")] = Path(
        "modalrun.yaml"
    ),
) -> None:
    """Set up modalrun in ZenML and write a run spec.

    Registers the flavor, an orchestrator and a stack. Whatever exists is left as it is, so the
    command can be repeated: no file is overwritten, and the active stack stays active. 'modalrun
    submit' needs none of this. At the end it shows what you can do next, in order: submit the run
    spec, make the stack the active one, and run the pipeline's file, if it is a script (it has
    'if __name__ == "__main__":').

    Exit codes: 0 done, 2 there is no such pipeline, a name is taken, or the stack can't be used
    with the target (nothing was registered), 3 not authenticated, 4 no such stack, 8 connection
    lost.
    """
    from modalrun.flavor import init_project

    done = init_project.initialize(
        Path.cwd(), pipeline=pipeline, from_stack=from_stack, target=target, name=name, spec=spec
    )
    for text, new in done.steps:
        writer.err(f"{'+' if new else '='} {text}")
    if done.next:
        writer.err("\nWhat you can do now:")
    for label, command in done.next:
        writer.err(f"  {label:<34} {command}")
    if done.undo:
        writer.err("\nTo undo this:")
    for command in done.undo:
        writer.err(f"  {command}")
