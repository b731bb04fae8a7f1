"""The argument RUN, which every command that looks at a run shares."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from modalrun.output.sanitize import harmless


def complete(incomplete: str) -> list[tuple[str, str]]:
    """What a shell offers for RUN: names, ids once their first digit is typed, and a word on each.

    Quick and silent: where nothing can be read, nothing is offered but 'latest'.
    """
    from modalrun.run.records import LATEST
    from modalrun.zenml_api.records.completion import recent_runs

    runs = recent_runs()
    offered = [(LATEST, "the newest run")]
    offered += [(run.name, run.status) for run in runs]
    if incomplete:
        offered += [(run.id, f"{run.name}, {run.status}") for run in runs]
    return [
        (value, harmless(word, colours=False))
        for value, word in offered
        if value.startswith(incomplete) and value.isprintable()
    ]


Run = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        autocompletion=complete,
        help="A run id, the beginning of one (4 digits or more), a run's name, or 'latest'. On a"
        " terminal it may be left out, which means 'latest'.",
    ),
]


def interactive() -> bool:
    """Whether a person sits at a terminal, so that RUN may be left out."""
    return sys.stdin.isatty() or sys.stdout.isatty()
