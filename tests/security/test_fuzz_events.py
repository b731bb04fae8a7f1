"""Random and mutated lines of a run's output, through everything that reads them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modalrun.output.github import markdown
from modalrun.output.log_text import LineRenderer, as_json
from modalrun.output.status_json import as_json as status_as_json
from modalrun.output.status_text import render
from modalrun.run import events
from modalrun.run.events import MARK, PREFIX, StepEvent
from modalrun.run.log_lines import Item, LogLine, RunLines
from modalrun.run.outcome import Outcome
from modalrun.run.progress import RunProgress
from modalrun.run.records import RunRecord, StepRecord
from modalrun.run.status import SandboxState, derive_status, with_events
from tests.unit.fakes import NOW, RUN_ID

TEXT = st.text(st.characters(exclude_categories=[]), max_size=30)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**18, max_value=10**40)
    | st.floats()
    | TEXT
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)
FIELDS = [field.name for field in dataclasses.fields(StepEvent)]
STATES = sorted(events.FINAL | {"waiting", "starting", "running", "retrying"})

VALID = st.fixed_dictionaries(
    {
        "step": st.sampled_from(["load", "train"]),
        "state": st.sampled_from(STATES),
        "at": st.floats(0, 1e11),
    },
    optional={
        "attempt": st.integers(0, 5),
        "sandbox": st.sampled_from(["sb-1", "sb-2"]),
        "gpu": st.sampled_from(["T4", "A100:2"]),
        "reason": TEXT,
        "began": st.floats(0, 1e11),
        "exit_code": st.integers(0, 255),
    },
)


@st.composite
def event_lines(draw: st.DrawFn) -> str:
    """Draw a line that is an event, or was one before it was changed."""
    values: dict[str, Any] = draw(VALID)
    for name in draw(st.lists(st.sampled_from([*FIELDS, "modalrun", "other"]), max_size=2)):
        values[name] = draw(VALUES)
    text = MARK + json.dumps({"modalrun": draw(st.sampled_from(["step", "lines"])), **values})
    if draw(st.booleans()):
        return text
    at, size = draw(st.integers(0, len(text))), draw(st.integers(0, 4))
    return text[:at] + draw(TEXT) + text[at + size :]


OUTPUT = st.lists(event_lines() | st.just(PREFIX) | st.just(MARK) | TEXT, max_size=8)


def read(pieces: list[str]) -> list[Item]:
    lines = RunLines("sb-run")
    found = [item for text in pieces for item in lines.feed("sb-run", "stdout", f"{text}\n")]
    # A step sandbox's output is read by the same parser.
    for sandbox in lines.step_sandboxes:
        found += [i for text in pieces for i in lines.feed(sandbox, "stderr", f"{text}\n")]
    return [*found, *lines.end_all()]


@given(OUTPUT)
def test_no_output_breaks_what_shows_it(pieces: list[str]) -> None:
    progress, latest = RunProgress(["load"]), {}
    renderer = LineRenderer(None, colours=False)
    for item in read(pieces):
        if isinstance(item, LogLine):
            json.loads(as_json(item))
            renderer.render(item)
        elif isinstance(item, StepEvent):
            progress.apply(item)
            latest[item.step] = item
    progress.chosen(1)
    steps = (StepRecord("load", "running", start=NOW), StepRecord("train", "not run"))
    run = RunRecord(RUN_ID, "a-run", "training", "running", NOW)
    status = with_events(derive_status(run, steps, SandboxState("running")), latest)
    json.loads(status_as_json(status))
    assert "\n".join(line.plain for line in render(status, NOW, 80)).encode()
    outcome = Outcome(1, "Run failed.", (), tuple(progress.rows.values()))
    assert markdown(outcome).encode()


@given(event_lines())
def test_what_is_taken_for_an_event_is_written_alike(text: str) -> None:
    event = events.read(text)
    if event is not None:
        assert events.read(events.line(event)) is not None
        assert json.dumps(dataclasses.asdict(event), allow_nan=False)


@given(OUTPUT)
def test_nothing_that_is_no_event_gets_lost(pieces: list[str]) -> None:
    shown = "".join(i.text for i in read(pieces) if isinstance(i, LogLine) and i.source == "stdout")
    for piece in pieces:
        if PREFIX not in piece and "\n" not in piece:
            assert piece in shown
