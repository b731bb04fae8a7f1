"""Show a run on a terminal: its lines go by, and a table of its steps stays below them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable
from itertools import groupby
from typing import Any

from rich.console import (
    Console,
    ConsoleOptions,
    ConsoleRenderable,
    Group,
    RenderableType,
    RenderResult,
)
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from modalrun.output.terminal.console import RenderedSegment
from modalrun.output.terminal.sanitize import harmless
from modalrun.output.terminal.table import SHORT_NAME, bar_width, cell, state_cell, table
from modalrun.run.progress import RunProgress, StepProgress
from modalrun.run.records import SUCCESSFUL
from modalrun.util.timeformat import duration_of

_MOST_ROWS = 12
_MOST_WAITS = 3
_CHUNK = 32 * 1024
"""Characters that are printed at a time: a question comes between two prints, and a terminal may
take no more than 100 kB a second."""

_RULE_WIDTH = 60
_LEAST = {"state": len("completed"), "time": len("59 m 59 s"), "sandbox": 29}
"""Widths of columns, so that they don't change with each step. Modal's ids have 25 or 29."""
_OTHERS = SHORT_NAME + 2 * 9 + 3 * 2
"""Columns beside a progress bar at least: step, state, time."""


class ResizableLive(Live):
    """A live display of lines that leaves no rows behind when a window becomes narrower.

    The terminal breaks its lines then; Rich (15) does not erase the rows that this adds.
    """

    def __init__(
        self, console: Console, picture: Callable[[], Iterable[Text]], **options: Any
    ) -> None:
        self._picture = picture
        self._lines: list[Text] = []
        self._widths: list[int] = []
        super().__init__(console=console, **options)

    def get_renderable(self) -> RenderableType:
        """Return the present picture, each of whose lines takes one row."""
        width = self.console.width
        self._lines = [part for line in self._picture() for part in line.wrap(self.console, width)]
        for line in self._lines:
            line.no_wrap, line.overflow = True, "crop"
        return Group(*self._lines)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Erase the added rows before Rich erases those that it has drawn."""
        columns, rows = self.console.size
        added = sum(max(0, width - 1) // columns for width in self._widths)
        # Rich cuts a picture that is higher than the terminal.
        self._widths = [min(line.cell_len, columns) for line in self._lines[:rows]]
        processed = super().process_renderables(renderables)
        if added and self.console.is_interactive and _terminal_reflows():
            erase = [(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)] * added
            return [Control(ControlType.CARRIAGE_RETURN, *erase), *processed]
        return processed


def _terminal_reflows() -> bool:
    """Return whether the terminal breaks lines anew when its width changes; nearly all do."""
    fixed = {"XTERM_VERSION", "STY"} & os.environ.keys()
    return not fixed and os.environ.get("TERM") != "linux"


class _Rendered:
    """Lines that `log_text` has rendered: Rich would take ten times as long to parse them."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._text = "".join(f"{line}\n" for line in lines)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield RenderedSegment(self._text)


class LiveView:
    """Show lines above a table of steps.

    Rich draws the table anew with every print. Lines are collected meanwhile, so that a slow
    terminal makes fewer, larger prints.
    """

    def __init__(self, console: Console, progress: RunProgress) -> None:
        self._console = console
        self._progress = progress
        self._note = ""
        self._question = ""
        self._began = time.time()
        self._columns: set[str] = set()
        self._news = threading.Condition()
        self._pending: list[str | Text] = []
        self._size = 0
        self._redraw = False
        self._closing = False
        self._live = ResizableLive(
            console, self._render, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._writer = threading.Thread(target=self._write, daemon=True)

    def start(self) -> None:
        """Draw the table."""
        self._live.start(refresh=True)
        self._writer.start()

    def stop(self) -> None:
        """Show the pending lines and remove the table."""
        with self._news:
            self._closing = True
            self._news.notify_all()
        self._writer.join()
        self._live.stop()

    def show(self, lines: Iterable[str | Text]) -> None:
        """Show lines above the table, a `str` as rendered; wait while too many are pending."""
        with self._news:
            self._news.wait_for(lambda: self._size < _CHUNK or self._closing)
            for line in lines:
                self._pending.append(line)
                self._size += len(line)
            self._news.notify_all()

    def note(self, text: str) -> None:
        """Show what is being waited for, until the first step runs."""
        self._note = harmless(text, colours=False)

    def question(self, text: str | None) -> None:
        """Show a question below the table, until it is None; lines wait meanwhile."""
        with self._news:
            self._question = text or ""
            self._redraw = True
            self._news.notify_all()

    def _write(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(
                    lambda: self._redraw or self._closing or (self._pending and not self._question)
                )
                lines: list[str | Text] = []
                if not self._redraw:
                    lines, self._pending, self._size = self._pending, [], 0
                    if not lines:
                        return
                redraw, self._redraw = self._redraw, False
                self._news.notify_all()
            if redraw:
                self._live.refresh()
            for verbatim, some in groupby(lines, lambda line: isinstance(line, str)):
                if verbatim:
                    self._console.print(_Rendered(map(str, some)))
                else:
                    self._console.print(*some, sep="\n")

    def _render(self) -> list[Text]:
        size = self._console.size
        # Shorter than the terminal, so that it stays one row where a window is made narrower.
        lines = [Text("─" * min(size.width, _RULE_WIDTH), style="dim")]
        limit, total = max(3, min(_MOST_ROWS, size.height // 3)), len(self._progress.rows)
        # One step more takes no more room than a line that tells of it.
        rows = self._progress.chosen(total if total == limit + 1 else limit)
        if rows:
            # A column that came stays.
            self._columns |= {
                name
                for name in ("gpu", "sandbox", "progress")
                if any(getattr(row, name) for row in list(self._progress.rows.values()))
            }
            lines += progress_table(rows, time.time(), size.width, self._columns)
        if total > len(rows):
            lines.append(Text(f"and {total - len(rows)} more steps", style="dim"))
        waits = [(row.name, row.capacity_wait) for row in rows if row.capacity_wait]
        for name, wait in waits[:_MOST_WAITS]:
            lines.append(Text(f"{name}: {wait.text(time.time())}", style="yellow"))
        lines.append(Text(self._footer(), style="dim", no_wrap=True, overflow="ellipsis"))
        if self._question:
            lines.append(Text(self._question, style="bold yellow", overflow="fold"))
        return lines

    def _footer(self) -> str:
        counts = self._progress.counts()
        order = ("running", "starting", "retrying", "failed", "waiting")
        total = len(self._progress.rows)
        done = sum(counts[state] for state in SUCCESSFUL)
        parts = [f"{done} of {total} steps done", *(f"{counts[s]} {s}" for s in order if counts[s])]
        parts.append(duration_of(time.time() - self._began))
        if self._note and counts["waiting"] == total:
            parts = [f"{self._note} ...", parts[-1]]
        return " · ".join(parts)


def progress_table(
    steps: Iterable[StepProgress],
    now: float,
    width: int,
    columns: Collection[str] = ("gpu", "sandbox", "progress"),
) -> list[Text]:
    """Create the table of steps.

    Args:
        steps: The steps to show, one or more.
        now: In seconds since the epoch.
        columns: Which of "gpu", "sandbox" and "progress" to show.
    """
    absent = {"gpu", "sandbox", "progress"} - set(columns)
    rows = [
        {
            "step": cell(step.name),
            "state": state_cell(step.state, step.attempt),
            "time": Text("" if seconds is None else duration_of(seconds)),
            "gpu": cell(step.gpu or "-"),
            "sandbox": cell(step.sandbox or "", "dim"),
            "progress": cell(step.progress),
        }
        for step in steps
        for seconds in [step.seconds(now)]
    ]
    return table(
        [{name: text for name, text in row.items() if name not in absent} for row in rows],
        width,
        cut={"progress": bar_width(width - _OTHERS), "step": SHORT_NAME},
        optional=("sandbox", "gpu"),
        least=_LEAST,
        header_style="dim",
    )
