"""Create consoles for stdout and stderr, and lay out lines for them."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from modalrun.errors import ModalrunError
from modalrun.output.terminal.sanitize import Pieces, harmless
from modalrun.output.terminal.wrapping import wrapped
from modalrun.output.terminal.writer import unguarded


class RenderedSegment(Segment):
    """Text in which nothing can do harm, with escape sequences of ours."""


class _Console(Console):
    """A console that neutralises every text; escape sequences come from styles alone."""

    @property
    def file(self) -> IO[str]:
        """The stream without the guard, which would remove what redraws a live display."""
        return unguarded(super().file)

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render an object, and neutralise its texts."""
        pieces = Pieces(colours=False)
        for segment in super().render(renderable, options):
            if segment.control or isinstance(segment, RenderedSegment):
                yield segment
                continue
            yield Segment(pieces.clean(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, as writing to the stream does; Rich would exit the process."""
        raise BrokenPipeError


def make_console(*, stderr: bool) -> Console:
    """Create a console that reads no markup in a text and fails at no character."""
    stream = unguarded(sys.stderr if stderr else sys.stdout)
    if isinstance(stream, io.TextIOWrapper):
        # A terminal or pipe that can't show a character must not end the run's output.
        stream.reconfigure(errors="replace")
    return _Console(stderr=stderr, markup=False, highlight=False, soft_wrap=True, emoji=False)


def is_terminal(console: Console) -> bool:
    """Return whether a console is a terminal: FORCE_COLOR makes Rich take a file for one."""
    return console.file.isatty()


def is_live(console: Console) -> bool:
    """Return whether a console can redraw."""
    return console.is_terminal and not console.is_dumb_terminal and is_terminal(console)


def width_of(console: Console) -> int | None:
    """Return the columns of a terminal; None for anything else, which has no width."""
    return console.width if is_terminal(console) else None


def print_lines(console: Console, lines: Sequence[Text]) -> None:
    """Print lines; the terminal itself breaks those that are too long."""
    if lines:
        console.print(*lines, sep="\n")


def fitted(
    text: str, width: int | None, style: str = "", *, indent: int | None = None
) -> list[Text]:
    """Break a text of one or more lines into lines that fit a width."""
    return [
        Text(part, style=style)
        for line in text.splitlines() or [""]
        for part in wrapped(harmless(line, colours=False), width, indent=indent)
    ]


def labelled(
    label: str, value: str, width: int | None, *, room: int, style: str = ""
) -> list[Text]:
    """Lay out a label of at most `room` columns and its value in lines that fit a width."""
    indent = 2 + room
    value = harmless(value, colours=False)
    first, *rest = wrapped(f"  {label:<{room}}{value}", width, indent=indent)
    line = Text.assemble((first[:indent], "dim"), (first[indent:], style))
    return [line, *(Text(part, style=style) for part in rest)]


def print_error(error: ModalrunError, *, with_effect: bool = True) -> None:
    """Print what happened, its effect on a submission, and the hint of an error to stderr."""
    console = make_console(stderr=True)
    width = width_of(console)
    text = error.message if with_effect else error.problem
    first, *rest = text.splitlines() or [""]
    lines = fitted(f"Error: {first}", width, "red", indent=4)
    for line in rest:
        lines += fitted(f"  {line}", width, indent=4)
    for line in (error.hint or "").splitlines():
        lines += fitted(f"  {line}", width, indent=2)
    print_lines(console, lines)
