"""Which steps a rerun takes from an earlier run, and which it runs."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

import pytest

from modalrun.errors import NotFoundError
from modalrun.run.records import StepRecord
from modalrun.run.rerun import Earlier, Rerun, decide
from tests.unit.fakes import NOW


def step(
    status: str | None = "completed", *upstream: str, changed: str | None = None, **times: int
) -> Earlier:
    moments = {name: NOW + timedelta(seconds=second) for name, second in times.items()}
    record = StepRecord("a-step", status, **moments) if status else None  # type: ignore[arg-type]
    return Earlier(upstream, record, changed)


def diamond(**others: Earlier) -> dict[str, Earlier]:
    """Two branches that meet again, all of it completed but for the given steps."""
    return {
        "load": step("completed"),
        "left": step("completed", "load"),
        "right": step("completed", "load"),
        "join": step("completed", "left", "right"),
        **others,
    }


@pytest.mark.parametrize(
    ("others", "begin", "runs"),
    [
        ({}, (), {}),
        ({"left": step("cached", "load"), "right": step("skipped", "load")}, (), {}),
        (
            {"left": step("failed", "load"), "join": step(None, "left", "right")},
            (),
            {"left": "failed", "join": "not run before"},
        ),
        ({"join": step("stopped", "left", "right")}, (), {"join": "stopped"}),
        # Whatever its record says, it gets another input.
        ({"left": step("failed", "load")}, (), {"left": "failed", "join": "after left"}),
        ({}, ("right",), {"right": "--from", "join": "after right"}),
        (
            {"left": step("failed", "load")},
            ("right",),
            {"left": "failed", "right": "--from", "join": "after left"},
        ),
        (
            {"load": step("completed", changed="its result 'x' was deleted")},
            (),
            {
                "load": "its result 'x' was deleted",
                "left": "after load",
                "right": "after load",
                "join": "after left",
            },
        ),
        ({"join": step("failed", "left", "right", changed="c")}, (), {"join": "failed"}),
    ],
)
def test_what_runs(
    others: dict[str, Earlier], begin: Collection[str], runs: dict[str, str]
) -> None:
    steps = diamond(**others)
    assert decide(steps, begin) == (tuple(name for name in steps if name not in runs), runs)


def test_a_misspelt_step_is_refused() -> None:
    with pytest.raises(NotFoundError, match="no step 'joint'") as caught:
        decide(diamond(), ["joint"])
    assert caught.value.hint == "Did you mean 'join'?"
    with pytest.raises(NotFoundError) as caught:
        decide(diamond(), ["x"])
    assert caught.value.hint == "Its steps: load, left, right, join."
    with pytest.raises(NotFoundError) as caught:
        decide({}, ["x"])
    assert caught.value.hint == "It has no steps."


def test_what_a_dynamic_pipeline_calls_after_a_step_may_depend_on_it() -> None:
    steps = {
        "count": step(start=0, end=10),
        "beside": step(start=5, end=20),
        "work": step(start=11, end=20),
        "total": step("completed", "work", start=21, end=22),
    }
    assert decide(steps, ["count"]) == (("beside", "work", "total"), {"count": "--from"})
    skipped, runs = decide(steps, ["count"], dynamic=True)
    assert skipped == ("beside",)
    assert runs == {"count": "--from", "work": "after count", "total": "after work"}


def test_a_step_without_times_follows_only_what_it_takes() -> None:
    steps = {"a": step("stopped", start=0), "b": step("completed"), "c": step("completed", "a")}
    assert decide(steps, dynamic=True) == (("b",), {"a": "stopped", "c": "after a"})


def test_the_lines() -> None:
    rerun = Rerun("1b2c", "nightly", "tag", ("load", "left"), {"right": "failed"})
    assert rerun.lines == (
        "Rerun of nightly (1b2c)",
        "  skipped  load, left (2 with the results of that run)",
        "  runs     right (failed)",
    )
    many = Rerun("1b2c", "nightly", "tag", (), {f"s{n}": "failed" for n in range(30)})
    assert many.lines[1] == "  skipped  no step"
    assert many.lines[2].endswith("s9 (failed) and 20 more")
    dynamic = Rerun("1b2c", "nightly", "tag", ("a",), {"b": "failed"}, dynamic=True)
    assert dynamic.lines[2].endswith("b (failed), and what else the pipeline's function calls")
