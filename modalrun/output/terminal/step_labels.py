"""Label the lines of steps: with their names, shortened where there is little room, and colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.cells import cell_len, set_cell_size

from modalrun.output.terminal.sanitize import harmless

ELLIPSIS = "…"

COLOURS = (36, 35, 32, 33, 34, 96, 95, 93, 92, 94)
"""SGR codes for the labels of steps, in the order in which the steps appear; no red, no grey."""

_NARROWEST, _WIDEST = 16, 40


def label_width(columns: int) -> int:
    """Return the columns that a label may have on a terminal; most are for the text."""
    return min(_WIDEST, max(_NARROWEST, columns * 3 // 10))


class ShortNames:
    """Short forms of names: each fits, all stay different, and none changes later.

    A name that is too long loses its middle; where names would then be equal, another part.

    Attributes:
        forms: The short form of each name.
    """

    def __init__(self, room: int) -> None:
        """
        Args:
            room: Columns for each, 3 at least.
        """
        self.forms: dict[str, str] = {}
        self._room = room
        self._used: set[str] = set()
        self._numbers: Counter[str] = Counter()

    def add(self, names: Iterable[str]) -> list[str]:
        """Add names without control characters; return the forms of those that are new."""
        new = [name for name in dict.fromkeys(names) if name not in self.forms]
        cuts = {name: _cuts(name, self._room) for name in new if cell_len(name) > self._room}
        counts = Counter(form for forms in cuts.values() for form in set(forms))
        self._used.update(name for name in new if name not in cuts)
        for name in new:
            forms = cuts.get(name)
            if forms is None:
                self.forms[name] = name
                continue
            own = (form for form in forms if counts[form] <= 1 and form not in self._used)
            self.forms[name] = next(own, "") or self._numbered(forms[0])
            self._used.add(self.forms[name])
        return [self.forms[name] for name in new]

    def _numbered(self, form: str) -> str:
        """Number a form where no cut makes a name different from the others."""
        numbered = form
        while numbered in self._used:
            self._numbers[form] += 1
            mark = f"~{self._numbers[form] + 1}"
            numbered = f"{set_cell_size(form, self._room - len(mark))}{mark}"
        return numbered


def _cuts(name: str, room: int) -> list[str]:
    """Cut a part out of a name in every possible way: its middle first."""
    left = room - 1
    heads = sorted(range(left + 1), key=lambda head: abs(2 * head - left))
    return [
        f"{set_cell_size(name, head)}{ELLIPSIS}{set_cell_size(name[::-1], left - head)[::-1]}"
        for head in heads
    ]


class StepLabels:
    """The labels of a run's steps. A label never changes, but may be padded as longer ones come."""

    def __init__(self, room: int) -> None:
        """
        Args:
            room: Columns that a label may have at most.
        """
        self._names = ShortNames(room)
        self._steps: dict[str, tuple[str, int]] = {}
        self._width = 0

    def learn(self, steps: Iterable[str]) -> None:
        """Add steps, so that the labels of all of them are aligned."""
        names = {s: harmless(s, colours=False) for s in steps if s not in self._steps}
        self._width = max([self._width, *map(cell_len, self._names.add(names.values()))])
        for step, name in names.items():
            colour = COLOURS[len(self._steps) % len(COLOURS)]
            self._steps[step] = (self._names.forms[name], colour)

    def of(self, step: str) -> tuple[str, int]:
        """Return the label of a step, as wide as all others, and the SGR code of its colour."""
        if step not in self._steps:
            self.learn([step])
        short, colour = self._steps[step]
        return set_cell_size(short, self._width), colour
