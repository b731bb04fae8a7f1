"""The live view, on a terminal that is a file."""

import io
import re
import time

import pytest
from rich.console import Console
from rich.text import Text

from modalrun.output.live import LiveView, ResizableLive, progress_table
from modalrun.output.terminal.console import print_lines
from modalrun.run.events import Redraw, StepEvent
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
    print_lines(console, progress_table(board().rows.values(), 170, width))
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
    print_lines(console, view._render())
    shown = text_of(console).splitlines()
    assert len(shown) <= 12
    assert any("running (try 2)" in line for line in shown)
    assert "1 of 200 steps done · 1 running · 198 waiting" in shown[-1]


@pytest.mark.parametrize(("steps", "more"), [(6, None), (7, None), (8, "and 2 more steps")])
def test_no_step_is_left_out_without_a_word(steps: int, more: str | None) -> None:
    console = terminal(height=20)
    print_lines(console, LiveView(console, board(steps))._render())
    _, _, *shown, footer = text_of(console).splitlines()
    assert len(shown) == min(steps, 7)
    assert ("more" in shown[-1]) == bool(more)
    assert more is None or shown[-1] == more
    assert f"1 of {steps} steps done" in footer


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_progress_bar_is_the_last_column(width: int) -> None:
    progress = board()
    second = list(progress.rows)[1]
    progress.apply(Redraw("unknown", "1 %"))
    progress.apply(Redraw(second, "epoch 3/10 \x1b[2J 31 % " + "|" * 200))
    console = terminal(width)
    view = LiveView(console, progress)
    print_lines(console, view._render())
    shown = text_of(console).splitlines()
    assert all(len(line) <= width for line in shown)
    assert shown[1].endswith("progress")
    assert "epoch 3/10  31" in shown[3] and "\x1b[2J" not in console.file.getvalue()  # type: ignore[attr-defined]
    progress.apply(StepEvent(second, "completed", 170, 2))
    progress.apply(Redraw(second, "late"))
    assert [row.progress for row in progress.rows.values()] == ["", "", ""]


def test_what_steps_wait_for_is_shown_below_them() -> None:
    progress = board(6)
    for name, gpu in zip(list(progress.rows)[2:], ("H100", "H100", "L4", "T4"), strict=True):
        progress.apply(StepEvent(name, "starting", time.time() - 40, awaits=gpu, following="A100"))
    console = terminal()
    print_lines(console, LiveView(console, progress)._render())
    shown = text_of(console).splitlines()
    assert "step_2_with_quite_a_name: waiting for H100 (40 s), next: A100" in shown
    assert sum("waiting for" in line for line in shown) == 3


def test_a_question_is_the_last_thing_shown() -> None:
    console = terminal()
    view = LiveView(console, board())
    view.note("Waiting")
    view.start()
    view.question("Stop it?")
    print_lines(console, view._render())
    view.stop()
    assert text_of(console).rstrip().splitlines()[-1] == "Stop it?"


def test_lines_wait_while_a_question_is_shown() -> None:
    console = terminal()
    view = LiveView(console, board())
    view.start()
    view.question("Stop it?")
    view.show([f"line {number}" for number in range(100)])
    deadline = time.monotonic() + 30
    while "Stop it?" not in text_of(console):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "line 0\n" not in text_of(console)
    view.question(None)
    view.stop()
    assert "line 0\nline 1\n" in text_of(console) and "line 99\n" in text_of(console)


@pytest.mark.parametrize("reflows", [True, False])
def test_no_row_is_left_in_a_window_that_becomes_narrower(
    monkeypatch: pytest.MonkeyPatch, reflows: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color" if reflows else "linux")
    for name in ("XTERM_VERSION", "STY"):
        monkeypatch.delenv(name, raising=False)
    console = terminal()
    out = console.file
    assert isinstance(out, io.StringIO)
    picture = [Text("x" * 70), Text("short"), Text("y" * 41)]
    live = ResizableLive(console, lambda: picture, transient=True)

    def erased() -> int:
        before = out.tell()
        live.refresh()
        return out.getvalue()[before:].count("\x1b[2K")

    live.start(refresh=True)
    assert erased() == 3
    console.width = 30
    # Three rows of the first line, two of the last: the terminal has added three rows.
    assert erased() == (6 if reflows else 3)
    # They are drawn as six rows now.
    assert erased() == 6
    console.width = 80
    assert erased() == 6
    assert erased() == 3
    live.stop()
    assert out.getvalue().endswith("\x1b[1A\x1b[2K")
