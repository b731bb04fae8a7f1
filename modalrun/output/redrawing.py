"""A picture on a terminal that is drawn anew all the time, also while a window becomes narrower."""

from __future__ import annotations

import os
from collections.abc import Callable

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment

Line = list[Segment]


class Redrawn(Live):
    """Rich's live display, of which nothing is left behind where a window is made narrower.

    Terminals break the lines that no longer fit, so the picture that is to be erased has more rows
    than were drawn; Rich (14) doesn't know of them.
    """

    def __init__(
        self,
        console: Console,
        picture: Callable[[], RenderableType],
        *,
        transient: bool = False,
        redirect: bool = False,
    ) -> None:
        """
        Args:
            console: The terminal.
            picture: What is to be shown now; asked four times a second.
            transient: Whether nothing of it stays in the end.
            redirect: Whether what others print meanwhile is to stand above it.
        """
        self._picture = picture
        self._widths: list[int] = []
        super().__init__(
            console=console,
            refresh_per_second=4,
            transient=transient,
            redirect_stdout=redirect,
            redirect_stderr=redirect,
        )

    def get_renderable(self) -> RenderableType:
        """The picture, whose lines are measured when they are drawn."""
        return _Measured(self._picture(), self._note)

    def _note(self, widths: list[int]) -> None:
        self._widths = widths

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Erase the rows that Rich doesn't know of, before it erases its own."""
        more = broken_rows(self._widths, self.console.width) if _breaks_lines() else 0
        processed = super().process_renderables(renderables)
        if more and self.console.is_interactive:
            erase = [(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)] * more
            return [Control(ControlType.CARRIAGE_RETURN, *erase), *processed]
        return processed


class _Measured:
    """Something to show, without blanks at the ends of its lines: they could be broken off."""

    def __init__(self, shown: RenderableType, note: Callable[[list[int]], None]) -> None:
        self._shown = shown
        self._note = note

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [_stripped(line) for line in console.render_lines(self._shown, options, pad=False)]
        # What is too high for the terminal, Rich cuts.
        self._note([Segment.get_line_length(line) for line in lines[: options.size.height]])
        for line in lines:
            yield from line
            yield Segment.line()


def broken_rows(widths: list[int], columns: int) -> int:
    """How many more rows lines take where a terminal has made them fit its columns.

    Args:
        widths: Of each line, in columns.
        columns: How wide the terminal is now.
    """
    return sum(max(0, width - 1) // columns for width in widths)


def _stripped(line: Line) -> Line:
    kept = list(line)
    while kept and (last := kept[-1]).control is None:
        text = last.text.rstrip(" ")
        if text:
            kept[-1] = Segment(text, last.style)
            break
        kept.pop()
    return kept


def _breaks_lines() -> bool:
    """Whether the terminal breaks lines anew when its width changes; nearly all do."""
    fixed = {"XTERM_VERSION", "STY"} & os.environ.keys()
    return not fixed and os.environ.get("TERM") != "linux"
