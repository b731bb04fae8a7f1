"""`modalrun plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from modalrun.cli.options import Given, Output, Spec, shared
from modalrun.output.terminal import writer
from modalrun.output.terminal.spinner import Spinner


@shared
def plan(
    spec: Spec = None,
    *,
    given: Given,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show where each value comes from, but for defaults.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="With --explain: also the defaults.")
    ] = False,
    files: Annotated[
        bool,
        typer.Option(
            "--files", help="List the files that go to a sandbox, and why others are left out."
        ),
    ] = False,
    output: Output = "text",
) -> None:
    """Show what 'submit' would run and what it can cost.

    Nothing is created. A deployment file needs no ZenML server.
    """
    checked = given.load(spec)

    from modalrun.plan.stack import wrong_stack
    from modalrun.submit.prepare import plan_spec
    from modalrun.submit.source.imports import check_imports
    from modalrun.submit.source.selection import select

    with Spinner("Compiling", quiet=output == "json"):
        found = plan_spec(checked)
        tree = select(found.source)
    if output == "json":
        from modalrun.output.plan_json import as_json

        writer.out_json(as_json(found, tree, files=files))
    else:
        from modalrun.output.plan_text import print_plan

        print_plan(
            found, tree, explain="all" if everything else "set" if explain else None, files=files
        )
    if found.problems:
        raise wrong_stack(found.stack, found.problems)
    tree.check()
    check_imports(found.source, tree)
