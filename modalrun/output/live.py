"""The live view on a terminal: the run's lines go by, a table of its steps stands below them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from itertools import groupby

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from modalrun.output.format import STYLES, duration_of
from modalrun.output.redrawing import Redrawn
from modalrun.output.step_labels import shortened
from modalrun.run.progress import RunProgress, StepProgress

_MOST_ROWS = 12
_MOST_PENDING = 20_000
"""Lines that wait to be shown; whoever brings more waits, so that memory stays bounded."""

_RULE_WIDTH = 60
_GAP = 2
_STATE_WIDTH = len("completed")
_TIME_WIDTH = len("59 m 59 s")
_SANDBOX_WIDTH = 29
"""Modal's ids: `sb-` and 26 characters, or 22."""

_SHORT_NAME = 16
"""Sandbox ids are left out where they would leave step names less room than this."""


class Verbatim:
    """Lines as they go to the terminal. Rich would take ten times as long to make sense of them."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._text = "".join(f"{line}\n" for line in lines)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment(self._text)


class LiveView:
    """Shows lines above a table. Rich draws the table anew with every print, so lines are
    collected while it does: a slow terminal makes fewer, larger prints."""

    def __init__(self, console: Console, board: RunProgress) -> None:
        self._console = console
        self._board = board
        self._note = ""
        self._question = ""
        self._began = time.time()
        self._news = threading.Condition()
        self._pending: list[str | Text] = []
        self._closing = False
        self._live = Redrawn(console, self._render, transient=True)
        self._writer = threading.Thread(target=self._write, daemon=True)

    def start(self) -> None:
        """Draw the table."""
        self._live.start(refresh=True)
        self._writer.start()

    def stop(self) -> None:
        """Show what is pending and take the table away."""
        with self._news:
            self._closing = True
            self._news.notify_all()
        self._writer.join()
        self._live.stop()

    def show(self, lines: Iterable[str | Text]) -> None:
        """Show lines above the table, a `str` verbatim; waits while too many are pending."""
        with self._news:
            self._news.wait_for(lambda: len(self._pending) < _MOST_PENDING or self._closing)
            self._pending.extend(lines)
            self._news.notify_all()

    def note(self, text: str) -> None:
        """What is being waited for, until the first step runs."""
        self._note = text

    def question(self, text: str | None) -> None:
        """A question below the table, until it is None."""
        self._question = text or ""
        self._live.refresh()

    def _write(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._pending or self._closing)
                lines, self._pending = self._pending, []
                self._news.notify_all()
                if not lines:
                    return
            for verbatim, some in groupby(lines, lambda line: isinstance(line, str)):
                if verbatim:
                    self._console.print(Verbatim(map(str, some)))
                else:
                    self._console.print(*some, sep="\n")

    def _render(self) -> RenderableType:
        size = self._console.size
        # Shorter than the terminal, so that it stays one row where a window is made narrower.
        parts: list[RenderableType] = [Text("─" * min(size.width, _RULE_WIDTH), style="dim")]
        rows = self._board.chosen(max(3, min(_MOST_ROWS, size.height // 3)))
        if rows:
            parts.append(table(rows, time.time(), size.width))
        parts.append(Text(self._footer(), style="dim", no_wrap=True, overflow="ellipsis"))
        if self._question:
            parts.append(Text(self._question, style="bold yellow", no_wrap=True, overflow="fold"))
        return Group(*parts)

    def _footer(self) -> str:
        counts = self._board.counts()
        order = ("running", "starting", "retrying", "failed", "waiting")
        total = len(self._board.rows)
        done = counts["completed"] + counts["cached"]
        parts = [f"{done} of {total} steps done", *(f"{counts[s]} {s}" for s in order if counts[s])]
        parts.append(duration_of(time.time() - self._began))
        if self._note and counts["waiting"] == total:
            parts = [f"{self._note} ...", parts[-1]]
        return " · ".join(parts)


def table(rows: Iterable[StepProgress], now: float, width: int) -> Table:
    """The steps as a table that fits a terminal.

    Args:
        rows: The steps to show.
        now: In seconds since the epoch.
        width: Columns of the terminal.
    """
    rows = list(rows)
    states = {row.name: _state(row) for row in rows}
    state_width = max(_STATE_WIDTH, *map(len, states.values()), 0)
    gpu_width = max((len(row.gpu) for row in rows if row.gpu), default=0)
    left = width - (state_width + _GAP) - (_TIME_WIDTH + _GAP) - (gpu_width and gpu_width + _GAP)
    names = max((len(row.name) for row in rows), default=0)
    with_sandbox = _SANDBOX_WIDTH + _GAP
    has_sandbox = any(r.sandbox for r in rows) and left - with_sandbox >= min(names, _SHORT_NAME)
    left -= with_sandbox if has_sandbox else 0
    made = Table(box=None, pad_edge=False, header_style="dim")
    looks = shortened((row.name for row in rows), max(8, left))
    made.add_column("step", no_wrap=True, overflow="ellipsis", max_width=max(8, left))
    made.add_column("state", no_wrap=True, min_width=state_width)
    made.add_column("time", justify="right", no_wrap=True, min_width=_TIME_WIDTH)
    if gpu_width:
        made.add_column("gpu", no_wrap=True, min_width=gpu_width)
    if has_sandbox:
        made.add_column("sandbox", no_wrap=True, min_width=_SANDBOX_WIDTH)
    for row in rows:
        seconds = row.seconds(now)
        cells: list[RenderableType] = [
            Text(looks[row.name]),
            Text(states[row.name], style=STYLES.get(row.state, "")),
            "" if seconds is None else duration_of(seconds),
        ]
        if gpu_width:
            cells.append(Text(row.gpu or "-"))
        if has_sandbox:
            cells.append(Text(row.sandbox or "", style="dim"))
        made.add_row(*cells)
    return made


def _state(row: StepProgress) -> str:
    return row.state if row.attempt == 1 else f"{row.state} (try {row.attempt})"
