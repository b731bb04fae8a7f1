"""The argument RUN, which every command that looks at a run shares."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

Run = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        help="A run id, the beginning of one (4 digits or more), a run's name, or 'latest'. On a"
        " terminal it may be left out, which means 'latest'.",
    ),
]


def interactive() -> bool:
    """Whether a person sits at a terminal, so that RUN may be left out."""
    return sys.stdin.isatty() or sys.stdout.isatty()
