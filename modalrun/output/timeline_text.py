"""Draw the timeline of a run as bars: a letter and a colour for each phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

from modalrun.output.terminal.table import SHORT_NAME, Row, cell, state_cell, table
from modalrun.run.timeline import Span, Timeline
from modalrun.util.timeformat import duration_of

_LETTERS = {
    "waiting": ("w", "dim"),
    "image": ("b", "magenta"),
    "sandbox start": ("s", "yellow"),
    "import": ("i", "cyan"),
    "retry": ("t", "yellow"),
    "lost": ("l", "magenta"),
    "run": ("R", "green"),
    "failed": ("X", "bold red"),
}
"""Letter and style of each phase, and of the run of an attempt that has failed. The later one is
shown where two fall into one column."""

_ORDER = ["", *_LETTERS]
_LEAST, _MOST = 16, 100
"""Columns of a bar."""

_WIDTH = 100
"""Columns where there is no terminal."""


def timeline_lines(timeline: Timeline, width: int | None) -> list[Text]:
    """Render a timeline in lines that fit a width; None without a terminal.

    How long each step took is in the table of the status.
    """
    rows: list[tuple[Row, Sequence[Span]]] = []
    for one in timeline.steps:
        state = state_cell(one.step.status, one.step.attempt)
        rows.append(({"step": cell(one.step.name), "state": state}, one.spans))
    return with_bars(timeline, rows, width)


def with_bars(
    timeline: Timeline, rows: Sequence[tuple[Mapping[str, Text], Sequence[Span]]], width: int | None
) -> list[Text]:
    """Lay out a table whose rows end with a bar, and say below what its letters mean.

    The first row is that of the run's own sandbox.

    Args:
        timeline: What all of the bars' length stands for.
        rows: The cells of each row, and the phases that its bar shows.
        width: Columns of the terminal; None without one.
    """
    if timeline.run and rows:
        whole = {"step": cell("(run)"), "time": Text(duration_of(timeline.end - timeline.begin))}
        rows = [({name: whole.get(name, Text()) for name in rows[0][0]}, timeline.run), *rows]
    widths = [max(cells[name].cell_len for cells, _ in rows) for name in rows[0][0]] if rows else []
    names = max(SHORT_NAME, (width or _WIDTH) // 4)
    others = sum(min(one, names) + 2 for one in widths)
    columns = max(_LEAST, min(_MOST, (width or _WIDTH) - others))
    if not any(spans for _, spans in rows):
        return table([cells for cells, _ in rows], width, cut={"step": SHORT_NAME}) if rows else []
    bars = [_bar(timeline, spans, columns) for _, spans in rows]
    drawn = [{**cells, "timeline": bar} for (cells, _), bar in zip(rows, bars, strict=True)]
    lines = table(drawn, width, cut={"step": SHORT_NAME}, optional=("gpu", "state"))
    # A short phase may be hidden by a longer one.
    shown = {letter for bar in bars for letter in bar.plain}
    meaning = [
        Text.assemble((letter, style), f" {kind}")
        for kind, (letter, style) in _LETTERS.items()
        if letter in shown
    ]
    return [*lines, Text("  ").join(meaning)]


def _bar(timeline: Timeline, spans: Sequence[Span], columns: int) -> Text:
    scale = columns / max(timeline.end - timeline.begin, 1e-9)
    shown = [""] * columns
    for span in spans:
        begin = min(columns - 1, max(0, int((span.begin - timeline.begin) * scale)))
        # A short phase has a column, too.
        end = max(begin + 1, round((span.end - timeline.begin) * scale))
        for column in range(begin, min(columns, end)):
            shown[column] = max(shown[column], span.kind, key=_ORDER.index)
    bar = Text()
    for kind in shown:
        bar.append(*(_LETTERS[kind] if kind else (" ", "")))
    return bar
