"""What is said between the lines that users print, and what is kept with a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.run import events
from modalrun.run.events import LinesOf, StepEvent
from modalrun.run.metadata import RunMetadata, StepMetadata, from_metadata, to_metadata
from modalrun.run.values import LONGEST_TEXT
from modalrun.util.text import one_line

NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=255)


@given(step=NAMES, state=st.sampled_from(sorted(events.FINAL)), reason=st.none() | st.text())
def test_an_event_is_one_line_and_comes_back(
    step: str, state: events.StepState, reason: str | None
) -> None:
    event = StepEvent(step, state, at=1.5, attempt=2, sandbox="sb-1", memory=128, reason=reason)
    line = events.line(event)
    assert line.count("\n") == 1
    # Lines, controls and what no encoding takes is changed in the reason; no event is lost by it.
    reason = None if reason is None else one_line(reason, LONGEST_TEXT)
    assert events.read(line) == replace(event, reason=reason)


def test_a_long_reason_with_anything_in_it_is_told() -> None:
    reason = "\ud800\x1b[31mred\x1b[0m\x07\nsecond " + "x" * 10_000
    line = events.line(StepEvent("a", "failed", at=1.0, reason=reason))
    event = events.read(line)
    assert isinstance(event, StepEvent) and event.reason is not None
    assert event.reason.startswith("\\ud800red second xxx") and event.reason.endswith("x...")


@pytest.mark.parametrize("step", ["train", None])
def test_whose_lines_follow(step: str | None) -> None:
    assert events.read(events.line(LinesOf(step))) == LinesOf(step)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        events.MARK,
        events.MARK + "{",
        events.MARK + "[1]",
        events.MARK + "7",
        events.MARK + '{"modalrun": "weather"}',
        events.MARK + '{"modalrun": []}',
        events.MARK + '{"modalrun": "step", "step": "a"}',
        events.MARK + '{"modalrun": "step", "step": "a", "state": "failed", "at": 1, "new": 2}',
        '{"modalrun": "lines", "step": "a"}',
    ],
)
def test_what_a_program_prints_is_no_event(text: str) -> None:
    assert events.read(text) is None


def test_facts_come_back_from_metadata() -> None:
    run = RunMetadata("local", "per_step", "app", "ap-1", "sb-1", timeout=60, gpu="T4", cpu=0.5)
    assert from_metadata(RunMetadata, {**to_metadata(run), "other": 1, "modalrun_new": 2}) == run
    assert None not in to_metadata(run).values()
    assert from_metadata(RunMetadata, {"other": 1}) is None
    step = StepMetadata("sb-1", gpu="T4", cpu=0.5)
    assert from_metadata(StepMetadata, {**to_metadata(step), "other": 1}) == step
    assert from_metadata(StepMetadata, to_metadata(run)) is None
    assert from_metadata(StepMetadata, {"modalrun_sandbox": "sb-1"}) is None


def test_later_facts_of_a_step_are_over_earlier_ones() -> None:
    earlier = StepMetadata("sb-1", gpu="T4", exit_code=137, infrastructure_retries=1)
    later = StepMetadata("sb-2", gpu="A10", begun=5)
    assert later.over(None) == later
    assert later.over(earlier) == replace(earlier, sandbox_id="sb-2", gpu="A10", begun=5)
