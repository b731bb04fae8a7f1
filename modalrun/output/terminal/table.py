"""Lay out tables that fit a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

from modalrun.output.format import STYLES, with_attempt
from modalrun.output.terminal.sanitize import harmless
from modalrun.output.terminal.step_labels import ShortNames

_GAP = "  "
_RIGHT = frozenset({"time", "cost"})
SHORT_NAME = 12
"""Columns that the name of a step keeps."""

Row = Mapping[str, Text]


def cell(text: str, style: str = "") -> Text:
    """Render a text as a cell of a table."""
    return Text(harmless(text, colours=False), style=style)


def state_cell(state: str, attempt: int = 1) -> Text:
    """Render a step's state in its colour."""
    return cell(with_attempt(state, attempt), STYLES.get(state, ""))


def bar_width(room: int) -> int:
    """Return how many columns a progress bar keeps, given the room beside the other cells."""
    return max(12, min(40, room))


def table(
    rows: Sequence[Row],
    width: int | None,
    *,
    cut: Mapping[str, int],
    optional: Sequence[str] = (),
    least: Mapping[str, int] | None = None,
    header_style: str = "bold",
) -> list[Text]:
    """Lay out a table without a frame in lines that fit a width.

    Args:
        rows: One or more; each has a cell for each column.
        width: Columns of the terminal; None for no limit.
        cut: Columns that are cut where there is no room, in this order, and the width that each
            keeps. Names in the column "step" stay different from each other.
        optional: Columns that are left out where there is no room, in this order.
        least: The smallest width of columns.
    """
    widths = {
        name: max((least or {}).get(name, 0), len(name), *(row[name].cell_len for row in rows))
        for name in rows[0]
    }

    def excess(kept: Mapping[str, int]) -> int:
        needed = sum(min(room, kept.get(name, room)) for name, room in widths.items())
        return 0 if width is None else needed + len(_GAP) * (len(widths) - 1) - width

    for name in optional:
        if excess(cut) > 0:
            widths.pop(name, None)
    for name, room in cut.items():
        if name in widths:
            widths[name] -= max(0, min(excess({}), widths[name] - room))
    lines = [_line({name: Text(name, style=header_style) for name in widths}, widths)]
    short = ShortNames(widths.get("step", 0))
    if "step" in widths:
        short.add(row["step"].plain for row in rows)
    names = short.forms
    for row in rows:
        cells = {**row, "step": Text(names[row["step"].plain])} if names else row
        lines.append(_line(cells, widths))
    return lines


def _line(cells: Row, widths: Mapping[str, int]) -> Text:
    parts = []
    for name, room in widths.items():
        cell = cells[name].copy()
        cell.truncate(room, overflow="ellipsis")
        cell.align("right" if name in _RIGHT else "left", room)
        parts.append(cell)
    line = Text(_GAP).join(parts)
    line.rstrip()
    return line
