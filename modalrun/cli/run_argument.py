"""Declare the argument RUN, and find the run that it means."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modalrun.cli import completion
from modalrun.errors import Interrupted
from modalrun.output.terminal import writer
from modalrun.output.terminal.spinner import Spinner

if TYPE_CHECKING:
    from modalrun.run.records import RunRecord


def _run(default: str) -> Any:
    """Declare RUN, with a sentence on its default."""
    named = "A run's id, the beginning of one (4 hex digits or more), a run's name, or 'latest'."
    return typer.Argument(metavar="RUN", autocompletion=completion.runs, help=f"{named} {default}")


Run = Annotated[str | None, _run("On a terminal, 'latest' is the default.")]
RunToStop = Annotated[
    str | None,
    _run(
        "The default is the newest run: on a terminal after a question, elsewhere if it is yours."
    ),
]


def interactive() -> bool:
    """Return whether a person sits at a terminal, so that RUN may be left out."""
    return sys.stdin.isatty() or sys.stdout.isatty()


END_OF_COMMAND = "Interrupted. This ends the command, not the run."
"""What `Interruption` says of a command that only reads."""


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
    with Spinner("Reading the run", quiet=quiet) as spinner:
        # They take a part of the wait.
        from modalrun.observe import status
        from modalrun.run import records
        from modalrun.zenml_api import process

        text = records.run_argument(run, interactive=interactive())
        with process.zenml_session():
            yield status.resolve(text), spinner
