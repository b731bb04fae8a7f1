"""A live picture in a window that becomes narrower."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from modalrun.output.redrawing import Redrawn, broken_rows


def test_how_many_rows_broken_lines_take() -> None:
    assert broken_rows([], 10) == 0
    assert broken_rows([0, 9, 10], 10) == 0
    assert broken_rows([11, 20, 21, 100], 10) == 1 + 1 + 2 + 9


@pytest.mark.parametrize("breaks", [True, False])
def test_all_rows_of_a_picture_are_erased(monkeypatch: pytest.MonkeyPatch, breaks: bool) -> None:
    monkeypatch.setenv("TERM", "xterm-256color" if breaks else "linux")
    for name in ("XTERM_VERSION", "STY"):
        monkeypatch.delenv(name, raising=False)
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=True, width=80, height=24, color_system=None, legacy_windows=False
    )
    # Blanks at an end would be broken off, too.
    picture = Text(f"{'x' * 70}{' ' * 9}\nshort\n{'y' * 41}", no_wrap=True)
    live = Redrawn(console, lambda: picture, transient=True)

    def erased() -> int:
        before = out.tell()
        live.refresh()
        return out.getvalue()[before:].count("\x1b[2K")

    live.start(refresh=True)
    assert erased() == 3
    console.width = 30
    # Two more of the first line, one of the last; then they are drawn to fit.
    assert erased() == (6 if breaks else 3)
    assert erased() == 3
    console.width = 80
    assert erased() == 3
    live.stop()
    assert out.getvalue().endswith("\x1b[1A\x1b[2K")
