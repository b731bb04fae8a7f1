"""The timeline of a run, drawn with letters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modalrun.output.timeline_text import timeline_lines
from modalrun.run.records import StepRecord
from modalrun.run.timeline import Span, StepTimeline, Timeline


def row(name: str, *spans: Span, status: str = "completed", attempt: int = 1) -> StepTimeline:
    return StepTimeline(StepRecord(name, status, attempt), (), spans)


TIMELINE = Timeline(
    1000.0,
    1100.0,
    over=True,
    run=(Span("image", 1000, 1010), Span("sandbox start", 1010, 1020), Span("run", 1020, 1100)),
    steps=(
        row("load", Span("import", 1020, 1030), Span("run", 1030, 1030.01)),
        row("cached", status="cached"),
        row(
            "train_the_model_with_a_rather_long_name\x1b[2J",
            Span("waiting", 1030.01, 1040),
            Span("run", 1040, 1060, failed=True),
            Span("retry", 1060, 1070, 2),
            Span("lost", 1070, 1080, 2),
            Span("run", 1080, 1100, 2),
            attempt=2,
        ),
        row("late", Span("waiting", 1090, 1099.9), Span("run", 1099.9, 1100, open=True)),
    ),
)


@pytest.mark.parametrize("width", [60, 80, 120, 200, None])
def test_each_phase_has_its_letter_where_it_was(width: int | None) -> None:
    lines = [line.plain for line in timeline_lines(TIMELINE, width)]
    head, run, load, cached, train, late, legend = lines
    assert width is None or all(len(line) <= width for line in lines[:-1])
    assert "\x1b" not in "".join(lines)
    left = head.index("timeline")
    bars = [line[left:] for line in (run, load, cached, train, late)]
    size = len(bars[0])
    assert size >= 16

    def share(bar: str, letter: str) -> float:
        return bar.count(letter) / size

    assert bars[0] == "".join(sorted(bars[0], key="bsR".index))
    assert share(bars[0], "R") == pytest.approx(0.8, abs=2 / size)
    assert bars[1].strip().lstrip("i") == "R", "the shortest phase has a column"
    assert bars[2] == ""
    letters = dict.fromkeys(bars[3].strip())
    assert list(letters) == ["w", "X", "t", "l", "R"]
    assert share(bars[3], "X") == pytest.approx(0.2, abs=2 / size)
    assert set(bars[4].strip()) == {"w", "R"}
    assert legend == (
        "w waiting  b image  s sandbox start  i import  t retry  l lost  R run  X failed"
    )


def test_a_run_of_no_length_and_one_without_steps() -> None:
    empty = replace(TIMELINE, end=1000.0, run=(), steps=())
    assert timeline_lines(empty, 80) == []
    short = replace(empty, steps=(row("a", Span("run", 1000, 1000)), row("b")))
    assert [line.plain for line in timeline_lines(short, 80)][1].rstrip().endswith("R")


def test_the_legend_has_the_letters_that_are_shown() -> None:
    # The shortest phase shares its column with the run.
    hidden = row("a", Span("sandbox start", 1000, 1000.1), Span("run", 1000.1, 1100))
    *_, legend = timeline_lines(replace(TIMELINE, run=(), steps=(hidden,)), 80)
    assert legend.plain == "R run"
