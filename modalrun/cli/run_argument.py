"""Declare the argument RUN, and find the run that it means."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from modalrun.output.sanitize import harmless
from modalrun.output.spinner import Spinner

if TYPE_CHECKING:
    from modalrun.run.records import RunRecord


def complete(incomplete: str) -> list[tuple[str, str]]:
    """Return what a shell offers for RUN: names, ids once a digit is typed, each with its status.

    It is quick and silent: where nothing can be read, only 'latest' is offered.
    """
    from modalrun.run.records import LATEST
    from modalrun.zenml_api.records.completion import recent_runs

    runs = recent_runs()
    offered = [(LATEST, "the newest run"), *((run.name, run.status) for run in runs)]
    if incomplete:
        offered += [(run.id, f"{run.name}, {run.status}") for run in runs]
    return [
        (value, harmless(description, colours=False))
        for value, description in offered
        if value.startswith(incomplete) and value.isprintable()
    ]


Run = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        autocompletion=complete,
        help="A run's id, the beginning of one (4 hex digits or more), a run's name, or 'latest'."
        " On a terminal, 'latest' is the default.",
    ),
]


def interactive() -> bool:
    """Return whether a person sits at a terminal, so that RUN may be left out."""
    return sys.stdin.isatty() or sys.stdout.isatty()


@contextlib.contextmanager
def resolved(run: str | None, *, quiet: bool = False) -> Iterator[tuple[RunRecord, Spinner]]:
    """Find the run that RUN means, in a session with ZenML and with a spinner.

    Raises:
        UsageError, NotFoundError: RUN is missing, or means no run or several.
    """
    from modalrun.observe import status
    from modalrun.run import records
    from modalrun.zenml_api import process

    text = records.run_argument(run, interactive=interactive())
    with Spinner("Reading the run", quiet=quiet) as spinner, process.zenml_session():
        yield status.resolve(text), spinner
