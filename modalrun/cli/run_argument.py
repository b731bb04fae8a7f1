"""Declare the argument RUN, and find the run that it means."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from modalrun.errors import Interrupted
from modalrun.output import writer
from modalrun.output.spinner import Spinner

if TYPE_CHECKING:
    from modalrun.run.records import RunRecord


_OFFERED = re.compile(r"(?!.*:::)[A-Za-z0-9_.][A-Za-z0-9_.:@+=-]*")
"""What a shell may get. Zsh evaluates what it is offered, a dash begins an option, and for
PowerShell three colons begin the description."""

_UNSAFE_HELP = re.compile(r"[^A-Za-z0-9 ,._-]")
"""What no description of an offer has; zsh evaluates it as well."""


def complete(incomplete: str) -> list[tuple[str, str]]:
    """Return what a shell offers for RUN: names, ids once a digit is typed, each with its status.

    A name that a shell could take for more than a word is not offered; its run's id is. It is quick
    and silent: where nothing can be read, only 'latest' is offered.
    """
    from modalrun.run.records import LATEST
    from modalrun.zenml_api.records.completion import recent_runs

    offered = [(LATEST, "the newest run")]
    for run in recent_runs():
        is_word = _OFFERED.fullmatch(run.name) is not None
        if is_word:
            offered.append((run.name, run.status))
        if incomplete or not is_word:
            offered.append((run.id, f"{run.name}, {run.status}"))
    return [
        (value, _UNSAFE_HELP.sub("_", description))
        for value, description in offered
        if value.startswith(incomplete) and _OFFERED.fullmatch(value)
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


END_OF_COMMAND = "Interrupted. This ends the command, not the run."
"""What `Interruption` says of a command that only looks on."""


class Interruption:
    """Print a sentence to stderr if a signal interrupts the block.

    Attributes:
        text: The sentence as things stand; empty for none.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def __enter__(self) -> Interruption:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.text and kind and issubclass(kind, KeyboardInterrupt | Interrupted):
            writer.err(self.text)


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
