"""The live view, on a terminal that is a file."""

import io
import re

import pytest
from rich.console import Console
from rich.text import Text

from modalrun.output.live import LiveView, table
from modalrun.run.events import StepEvent
from modalrun.run.progress import RunProgress


def terminal(width: int = 80, height: int = 24) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, markup=False,
        highlight=False, emoji=False, legacy_windows=False, color_system=None,
    )  # fmt: skip


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def board(steps: int = 3) -> RunProgress:
    made = RunProgress([f"step_{i}_with_quite_a_name" for i in range(steps)])
    first, second, *_ = made.rows
    box = f"sb-{'A' * 26}"
    made.apply(StepEvent(first, "running", 100, sandbox=box, gpu="A100-80GB:8", began=100))
    made.apply(StepEvent(first, "completed", at=162, sandbox=f"sb-{'A' * 26}"))
    made.apply(StepEvent(second, "running", 162, 2, f"sb-{'B' * 26}", began=162))
    return made


@pytest.mark.parametrize("width", [60, 80, 100, 160, 200])
def test_the_table_fits(width: int) -> None:
    console = terminal(width)
    console.print(table(board().rows.values(), 170, width))
    lines = text_of(console).splitlines()
    assert len(lines) == 4
    assert all(len(line) <= width for line in lines)
    shown = "\n".join(lines)
    assert "1 m 02 s" in shown and "8.0 s" in shown
    assert "completed" in shown and "running (try 2)" in shown
    assert ("sb-AAAAAAAA" in shown) == (width >= 100)


def test_lines_stand_above_the_table_and_the_table_goes_in_the_end() -> None:
    console = terminal()
    view = LiveView(console, board())
    view.start()
    view.show([Text("first"), Text("second")])
    view.show([Text("third")])
    view.stop()
    shown = text_of(console)
    assert shown.index("first\nsecond") < shown.index("third")
    assert "1 of 3 steps done · 1 running · 1 waiting" in shown
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().rpartition("\x1b[?25")[2].startswith("h"), "the cursor is back"


def test_of_two_hundred_steps_the_running_ones_and_counts_are_shown() -> None:
    console = terminal(height=24)
    view = LiveView(console, board(200))
    console.print(view._render())
    shown = text_of(console).splitlines()
    assert len(shown) <= 12
    assert any("running (try 2)" in line for line in shown)
    assert "1 of 200 steps done · 1 running · 198 waiting" in shown[-1]


def test_a_question_is_the_last_thing_shown() -> None:
    console = terminal()
    view = LiveView(console, board())
    view.note("Waiting")
    view.start()
    view.question("Stop it?")
    console.print(view._render())
    view.stop()
    assert text_of(console).rstrip().splitlines()[-1] == "Stop it?"
