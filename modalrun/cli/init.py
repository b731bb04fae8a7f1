"""`modalrun init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modalrun.cli.options import TargetOption


def init(
    pipeline: Annotated[
        str | None,
        typer.Argument(
            metavar="[PIPELINE]",
            help="The pipeline that the run spec is for, as module.function. Without it, the one"
            " below this folder, where there is one.",
        ),
    ] = None,
    *,
    from_stack: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="STACK", help="The stack to start from; the active one without it."
        ),
    ] = None,
    target: Annotated[
        TargetOption, typer.Option(help="Where the stack's runs go.")
    ] = TargetOption.modal,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="The name of the new orchestrator and stack; 'modalrun' without it, or"
            " 'modalrun_local' for the target 'local'.",
        ),
    ] = None,
    spec: Annotated[
        Path, typer.Option("--spec", metavar="FILE", help="Where the run spec is written.")
    ] = Path("modalrun.yaml"),
) -> None:
    """Set modalrun up in ZenML: its flavor, an orchestrator, a stack and a run spec.

    What is there is left as it is, so that it can be repeated; no file is overwritten and the
    active stack stays the active one. 'modalrun submit' needs none of it.

    Exit codes: 0 done, 2 a name is taken, or the stack can't be used with the target (nothing was
    registered), 3 not authenticated, 4 no such stack, 8 connection lost.
    """
    from modalrun.flavor import init_project

    done = init_project.initialize(
        Path.cwd(),
        pipeline=pipeline,
        from_stack=from_stack,
        target=target.value,
        name=name,
        spec=spec,
    )
    for step in done.steps:
        typer.echo(f"{'+' if step.new else '='} {step.text}", err=True)
    if done.next:
        typer.echo("\nWhat you can do now:", err=True)
    for label, command in done.next:
        typer.echo(f"  {label:<34} {command}", err=True)
    if done.undo:
        typer.echo("\nTo undo what was done just now:", err=True)
    for command in done.undo:
        typer.echo(f"  {command}", err=True)
