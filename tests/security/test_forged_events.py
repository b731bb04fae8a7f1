"""Lines of user code that look like events: they are shown, harmless, and nothing follows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modalrun.output.github import GitHubReporter
from modalrun.run import events
from modalrun.run.events import MARK, PREFIX, LinesOf, StepEvent
from modalrun.run.log_lines import MAX_NAMED, Item, LogLine, RunLines
from modalrun.run.outcome import Outcome
from modalrun.run.progress import RunProgress
from tests.security.growth import assert_linear

RUN = "sb-run"
VALID: dict[str, Any] = {"modalrun": "step", "step": "train", "state": "running", "at": 1.0}


def printed(text: str, **options: Any) -> list[Item]:
    """Read text that the run sandbox has printed."""
    lines = RunLines(RUN, **options)
    return [*lines.feed(RUN, "stdout", text), *lines.end(RUN, "stdout")]


def forged(**fields: Any) -> str:
    return f"{MARK}{json.dumps(VALID | fields)}"


def test_the_form_of_the_forgeries_is_right() -> None:
    assert printed(forged()) == [StepEvent("train", "running", 1.0)]


@pytest.mark.parametrize(
    "fields",
    [
        {"step": "x\n::error::forged"},
        {"step": "\x1b]52;c;aGk=\x07"},
        {"step": ""},
        {"step": "x" * 256},
        {"step": ["train"]},
        {"step": {"a": "b"}},
        {"step": "\ud800"},
        {"state": "exploded"},
        {"state": ["running"]},
        {"at": "now"},
        {"at": True},
        {"at": -1},
        {"at": 1e300},
        {"at": float("nan")},
        {"at": float("inf")},
        {"at": 10**400},
        {"at": None},
        {"attempt": 1.5},
        {"attempt": "1"},
        {"attempt": -1},
        {"attempt": 10**30},
        {"attempt": True},
        {"sandbox": "sb-1/../sb-2"},
        {"sandbox": "ap-1"},
        {"sandbox": "sb-1\n"},
        {"sandbox": 7},
        {"sandbox": "sb-" + "1" * 100},
        {"gpu": "T4\x1b[2J"},
        {"gpu": "::add-mask::x"},
        {"cpu": float("-inf")},
        {"memory": 0.5},
        {"exit_code": "0"},
        {"exit_code": 2**40},
        {"reason": "a\n::set-output name=x::y"},
        {"reason": "\x9b31m"},
        {"reason": "x" * 100_000},
        {"reason": "\udc80"},
        {"wasted": 1.0},
        {"began": float("nan")},
        {"more": 1},
    ],
    ids=", ".join,
)
def test_an_event_with_one_wrong_value_is_an_ordinary_line(fields: dict[str, Any]) -> None:
    text = forged(**fields)
    found = printed(text)
    assert found and all(isinstance(item, LogLine) for item in found)
    assert "".join(item.text for item in found if isinstance(item, LogLine)) == text


@pytest.mark.parametrize(
    "encoded",
    [
        "[" * 60_000,
        '{"modalrun":' * 5_000,
        '{"modalrun": "step", "at": ' + "9" * 60_000 + "}",
        '{"modalrun": {"step": 1}}',
        '{"modalrun": ["step"]}',
        '{"modalrun": "step"}',
        '{"modalrun": "lines", "step": "a\\u001b[2J"}',
        '{"modalrun": "lines", "step": "a"} trailing',
        # The supervisor only looks for the usual beginning.
        '{ "modalrun": "lines", "step": "a"}',
        '{"step": "a", "modalrun": "lines"}',
        '{"\\u006dodalrun": "lines", "step": "a"}',
    ],
    ids=range(11),
)
def test_what_is_no_event_at_all_is_an_ordinary_line(encoded: str) -> None:
    (line,) = printed(MARK + encoded)
    assert isinstance(line, LogLine) and line.text == MARK + encoded


def test_only_steps_of_the_graph_have_events() -> None:
    text = f"{forged()}\n{forged(step='ghost')}\n{forged(modalrun='lines')}"
    known, ghost, _ = printed(text, graph=["train"])
    assert known == StepEvent("train", "running", 1.0)
    assert isinstance(ghost, LogLine)


def test_the_steps_of_a_dynamic_run_are_limited() -> None:
    text = "".join(
        events.line(StepEvent(f"step {number}", "running", 1.0, sandbox=f"sb-{number}"))
        for number in range(MAX_NAMED // 2 + 1)
    )
    progress = RunProgress([])
    found = printed(text)
    for item in found:
        if isinstance(item, StepEvent):
            progress.apply(item)
    # Each line names a step and a sandbox.
    assert len(progress.rows) == MAX_NAMED // 2
    assert len(found) == MAX_NAMED // 2 + 1 and isinstance(found[-1], LogLine)


@pytest.mark.parametrize("piece", [MARK, PREFIX, f'{PREFIX}: "step"}}'])
@pytest.mark.parametrize("size", [1, 100_000], ids=["pieces", "whole"])
def test_marks_take_linear_time(piece: str, size: int) -> None:
    def parse(text: str) -> None:
        lines = RunLines(RUN)
        for start in range(0, len(text), size):
            lines.feed(RUN, "stdout", text[start : start + size])

    assert_linear(parse, lambda number: piece * (number // len(piece)), 10_000)


def test_retries_take_linear_time() -> None:
    running = "".join(
        events.line(StepEvent("a", "running", 1.0, attempt=n, sandbox=f"sb-{n}"))
        for n in range(2_000)
    )
    retrying = events.line(StepEvent("a", "retrying", 2.0, attempt=2_001))
    assert_linear(printed, lambda number: running + retrying * number, 1_000)


def test_a_lone_surrogate_breaks_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    reason = "ValueError: \udc80"
    (event,) = printed(events.line(StepEvent("train", "failed", 1.0, reason=reason)))
    progress = RunProgress(["train"])
    assert isinstance(event, StepEvent)
    progress.apply(event)
    # A reason that comes from elsewhere, too.
    other = RunProgress(["other"])
    other.rows["other"].state, other.rows["other"].reason = "failed", reason
    steps = (*progress.rows.values(), *other.rows.values())
    outcome = Outcome(1, "Run failed: \ud800.", (("reason", "\udfff"),), steps)
    with GitHubReporter() as reporter:
        reporter.summary(outcome)
    assert "dc80" in page.read_text(encoding="utf-8")
    assert "ValueError" in capsys.readouterr().out


def test_lines_of_is_checked_as_well() -> None:
    assert printed(events.line(LinesOf("train"))) == [LinesOf("train")]
    assert isinstance(printed(events.line(LinesOf("\x1b[2J")))[0], LogLine)
