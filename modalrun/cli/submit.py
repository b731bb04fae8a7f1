"""`modalrun submit`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class TargetOption(str, Enum):
    """Where sandboxes run."""

    modal = "modal"
    local = "local"


def submit(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="The run spec, a YAML file.")],
    target: Annotated[
        TargetOption | None,
        typer.Option(
            help="Where to run, above what the run spec says: 'modal' is Modal's cloud, 'local'"
            " the local Modal server."
        ),
    ] = None,
) -> None:
    """Run a pipeline on Modal and follow it to its end.

    Exit codes: 0 completed, 1 the run failed, 2 the command line or the run spec is wrong, 3 not
    authenticated, 4 not found, 5 no capacity, 6 timed out, 7 stopped or terminated, 8 connection
    lost, 9 outcome of the submission unknown, 130 and 143 interrupted.
    """
    from modalrun.spec import load_spec

    checked = load_spec(spec, target=target.value if target else None)

    from modalrun.output.console import Reporter
    from modalrun.submission import submit as run_to_its_end

    with Reporter() as reporter:
        outcome = run_to_its_end(checked, reporter)
        reporter.summary(outcome)
    raise typer.Exit(outcome.exit_code)
