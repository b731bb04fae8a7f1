"""The marks of steps: their names, where there is little room, and their colours. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from rich.cells import cell_len, set_cell_size

from modalrun.output.sanitize import harmless

ELLIPSIS = "…"

COLOURS = (36, 35, 32, 33, 34, 96, 95, 93, 92, 94)
"""SGR codes for the marks of steps, in the order in which the steps appear; no red, no grey."""

_NARROWEST, _WIDEST = 16, 40


def widest(columns: int) -> int:
    """Columns that a mark may have at most on a terminal so wide: most of it is for the text."""
    return min(_WIDEST, max(_NARROWEST, columns * 3 // 10))


def shortened(
    names: Iterable[str], room: int, settled: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Names that fit into some columns, each of them told apart from all others.

    What is too long loses its middle; where names then look the same, another part of them.

    Args:
        names: Without control characters.
        room: Columns that there are for each, 3 at least.
        settled: How some names look already.
    """
    looks = dict(settled or {})
    names = list(dict.fromkeys(names))
    cuts = {name: _cuts(name, room) for name in names if cell_len(name) > room}
    counts = [Counter(forms) for forms in zip(*cuts.values(), strict=True)]
    used = {*looks.values(), *(name for name in names if name not in cuts)}
    for name in names:
        if name in looks:
            continue
        if name in cuts:
            forms = cuts[name]
            own = (form for form, count in zip(forms, counts, strict=True) if count[form] == 1)
            looks[name] = next((form for form in own if form not in used), "") or _numbered(
                forms[0], room, used
            )
        else:
            looks[name] = name
        used.add(looks[name])
    return looks


def _cuts(name: str, room: int) -> list[str]:
    """A name without one part of it: first without its middle, then without parts beside that."""
    left = room - 1
    heads = sorted(range(left + 1), key=lambda head: abs(2 * head - left))
    return [f"{_head(name, head)}{ELLIPSIS}{_tail(name, left - head)}" for head in heads]


def _head(name: str, cells: int) -> str:
    return set_cell_size(name, cells)


def _tail(name: str, cells: int) -> str:
    return set_cell_size(name[::-1], cells)[::-1]


def _numbered(form: str, room: int, used: set[str]) -> str:
    """A form that is not used yet, where no cut tells a name apart from the others."""
    if form not in used:
        return form
    number = 2
    while (numbered := f"{_head(form, room - len(f'~{number}'))}~{number}") in used:
        number += 1
    return numbered


class Marks:
    """How the steps of a run are named at the head of their lines on a terminal.

    A mark never changes; they become wider as longer names appear.
    """

    def __init__(self, room: int) -> None:
        """
        Args:
            room: Columns that a mark may have at most.
        """
        self._room = room
        self._names: dict[str, str] = {}
        self._looks: dict[str, str] = {}
        # Of each line of a log that is printed as fast as can be.
        self._marks: dict[str, tuple[str, int]] = {}

    def learn(self, steps: Iterable[str]) -> None:
        """Take up steps whose names have not appeared before."""
        new = [step for step in dict.fromkeys(steps) if step not in self._marks]
        if not new:
            return
        self._names.update((step, harmless(step, colours=False)) for step in new)
        self._looks = shortened(self._names.values(), self._room, self._looks)
        width = max(map(cell_len, self._looks.values()))
        self._marks = {
            step: (set_cell_size(self._looks[name], width), COLOURS[number % len(COLOURS)])
            for number, (step, name) in enumerate(self._names.items())
        }

    def of(self, step: str) -> tuple[str, int]:
        """The name of a step, as wide as all others, and the SGR code of its colour."""
        if step not in self._marks:
            self.learn([step])
        return self._marks[step]
