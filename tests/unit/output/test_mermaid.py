"""Mermaid of a run, whose names may be anything. The texts were checked with Mermaid 11.17."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from modalrun.output.mermaid import flowchart, gantt
from modalrun.run.records import StepRecord
from modalrun.run.timeline import Span, StepTimeline, Timeline

NAMES = [
    "load", "ünï 1", "end", "click x", "section y", "a:b;c#d", "%%{init: {}}%%", '"q" `md`',
    "<script>", "]--> [", "x : crit, 0, 1", "```\n# owned", "#35;", "__init__", "1. list", " ",
]  # fmt: skip
STEPS = [
    StepRecord(name, "failed" if number == 2 else "completed", upstream=tuple(NAMES[:number]))
    for number, name in enumerate(NAMES)
]
SPANS = (
    Span("waiting", 1000, 1000.5),
    Span("run", 1000.5, 1010, failed=True),
    Span("retry", 1010, 1050, 2),
    Span("run", 1050, 1100, 2),
)
TIMELINE = Timeline(
    1000, 1100, True, SPANS[-1:], tuple(StepTimeline(step, (), SPANS) for step in STEPS)
)


def body(drawn: str | None) -> list[str]:
    assert drawn is not None
    first, *lines, last = drawn.split("\n")
    assert (first, last) == ("```mermaid", "```")
    return lines


def test_a_gantt_has_a_section_for_each_step_and_a_bar_for_each_phase() -> None:
    lines = body(gantt(TIMELINE))
    assert lines[:7] == [
        "---", "displayMode: compact", "---", "gantt", "dateFormat x", "axisFormat %H:%M:%S",
        "section #40;run#41;",
    ]  # fmt: skip
    start = lines.index("section load")
    assert lines[start + 1 : start + 5] == [
        "· : done, 1000000, 1000500",
        "9.5 s : crit, 1000500, 1010000",
        "retry : done, 1010000, 1050000",
        "50 s : active, 1050000, 1100000",
    ]
    sections = [line for line in lines if line.startswith("section ")]
    assert len(sections) == 1 + len(NAMES)
    assert all(re.fullmatch(r"section ([^\W_]|[ -]|#\d+;)+", line) for line in sections)


def test_a_flowchart_has_a_node_for_each_step_and_an_arrow_for_each_dependency() -> None:
    lines = body(flowchart(STEPS))
    nodes = lines[1 : 1 + len(NAMES)]
    label = r's\d+\["([^\W_]|[ -]|#\d+;|<br>failed)+"\](:::failed)?'
    assert all(re.fullmatch(label, node) for node in nodes), nodes
    assert nodes[0] == 's0["load"]' and nodes[2] == 's2["end<br>failed"]:::failed'
    arrows = [line for line in lines if " --> " in line]
    assert len(arrows) == sum(range(len(NAMES))) and arrows[0] == "s0 --> s1"
    assert not [line for line in lines if line.startswith("```")]


def test_what_mermaid_would_not_draw_is_not_drawn() -> None:
    assert flowchart([replace(step, upstream=()) for step in STEPS]) is None
    many = [StepRecord(f"s{n}", "completed", upstream=("s0",) if n else ()) for n in range(502)]
    assert flowchart(many) is None and flowchart(many[:-1]) is not None
    assert gantt(replace(TIMELINE, run=(), steps=())) is None
    assert gantt(replace(TIMELINE, steps=TIMELINE.steps * 50)) is None


@pytest.mark.parametrize("length", [100, 101, 100_000])
def test_a_long_name_is_cut(length: int) -> None:
    step = StepRecord("x" * length, "completed", upstream=("load",))
    node = body(flowchart([STEPS[0], step]))[2]
    assert node.count("x") == (100 if length == 100 else 97)
