"""`modalrun plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from modalrun.cli.options import Given, Output, Spec, shared
from modalrun.output import writer
from modalrun.output.spinner import Spinner


@shared
def plan(
    spec: Spec,
    *,
    given: Given,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show where each value comes from.")
    ] = False,
    output: Output = "text",
) -> None:
    """Show what 'submit' would run and what it can cost.

    Nothing is created. A deployment file needs no ZenML server.
    """
    checked = given.load(spec)

    from modalrun.plan.stack import wrong_stack
    from modalrun.submit.prepare import plan_spec

    with Spinner("Compiling", quiet=output == "json"):
        found = plan_spec(checked)
    if output == "json":
        from modalrun.output.plan_json import as_json

        writer.out_json(as_json(found))
    else:
        from modalrun.output.plan_text import print_plan

        print_plan(found, explain=explain)
    if found.problems:
        raise wrong_stack(found.stack, found.problems)
