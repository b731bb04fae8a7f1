"""Label the lines of steps: with their names, shortened where there is little room, and colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from rich.cells import cell_len, set_cell_size

from modalrun.output.sanitize import harmless

ELLIPSIS = "…"

COLOURS = (36, 35, 32, 33, 34, 96, 95, 93, 92, 94)
"""SGR codes for the labels of steps, in the order in which the steps appear; no red, no grey."""

_NARROWEST, _WIDEST = 16, 40


def label_width(columns: int) -> int:
    """Return the columns that a label may have on a terminal; most are for the text."""
    return min(_WIDEST, max(_NARROWEST, columns * 3 // 10))


def shortened(
    names: Iterable[str], room: int, settled: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Shorten names so that they fit and all stay different.

    A name that is too long loses its middle; where names would then be equal, another part.

    Args:
        names: Names without control characters.
        room: Columns for each, 3 at least.
        settled: Short forms that were chosen before and stay.
    """
    short = dict(settled or {})
    names = list(dict.fromkeys(names))
    cuts = {name: _cuts(name, room) for name in names if cell_len(name) > room}
    counts = Counter(form for forms in cuts.values() for form in set(forms))
    used = {*short.values(), *(name for name in names if name not in cuts)}
    for name in names:
        if name in short:
            continue
        forms = cuts.get(name, [name])
        own = (form for form in forms if counts[form] <= 1 and form not in used)
        short[name] = name if name not in cuts else next(own, "") or _numbered(forms[0], room, used)
        used.add(short[name])
    return short


def _cuts(name: str, room: int) -> list[str]:
    """Cut a part out of a name in every possible way: its middle first."""
    left = room - 1
    heads = sorted(range(left + 1), key=lambda head: abs(2 * head - left))
    return [
        f"{set_cell_size(name, head)}{ELLIPSIS}{set_cell_size(name[::-1], left - head)[::-1]}"
        for head in heads
    ]


def _numbered(form: str, room: int, used: set[str]) -> str:
    """Number a form where no cut makes a name different from the others."""
    number = 2
    while form in used:
        mark = f"~{number}"
        form = f"{set_cell_size(form, room - len(mark))}{mark}"
        number += 1
    return form


class StepLabels:
    """The labels of a run's steps. A label never changes, but may be padded as longer ones come."""

    def __init__(self, room: int) -> None:
        """
        Args:
            room: Columns that a label may have at most.
        """
        self._room = room
        self._short: dict[str, str] = {}
        self._labels: dict[str, tuple[str, int]] = {}

    def learn(self, steps: Iterable[str]) -> None:
        """Add steps, so that the labels of all of them are aligned."""
        new = [step for step in dict.fromkeys(steps) if step not in self._labels]
        if not new:
            return
        names = {step: harmless(step, colours=False) for step in (*self._labels, *new)}
        self._short = shortened(names.values(), self._room, self._short)
        width = max(map(cell_len, self._short.values()))
        self._labels = {
            step: (set_cell_size(self._short[name], width), COLOURS[number % len(COLOURS)])
            for number, (step, name) in enumerate(names.items())
        }

    def of(self, step: str) -> tuple[str, int]:
        """Return the label of a step, as wide as all others, and the SGR code of its colour."""
        if step not in self._labels:
            self.learn([step])
        return self._labels[step]
