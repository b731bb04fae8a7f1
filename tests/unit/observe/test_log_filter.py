"""What is said of steps that have no lines."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from modalrun.observe.log_filter import silent_steps, unknown_steps
from modalrun.run.records import StepRecord

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
NAMES = ["load", "train_small", "train_large"]


def test_a_step_that_there_is_not() -> None:
    error = unknown_steps(["train_smal", "load"], NAMES)
    assert error is not None
    assert error.exit_code == 4
    assert error.message == "The run has no step named 'train_smal'."
    assert error.hint == "Did you mean 'train_small'? Its steps: load, train_small, train_large."
    assert unknown_steps(["train*", "load"], NAMES) is None
    many = unknown_steps(["x"], [f"step_{n}" for n in range(30)])
    assert many is not None and many.hint is not None
    assert many.hint.endswith("step_19 and 10 more.")


@pytest.mark.parametrize(
    ("step", "over", "says"),
    [
        (StepRecord("load", "not run"), False, "Step 'load' has not run yet."),
        (StepRecord("load", "not run"), True, "Step 'load' has not run: the run ended before."),
        (StepRecord("load", "cached"), True, "its result comes from ZenML's cache."),
        (StepRecord("load", "skipped"), True, "its result is that of an earlier run."),
        (StepRecord("load", "running", 1, NOON), False, "(running) has printed nothing so far."),
        (StepRecord("load", "completed", 1, NOON, NOON), True, "(completed) has printed nothing."),
        (StepRecord("load", "completed"), True, "(completed) has printed nothing."),
    ],
)
def test_a_step_without_lines(step: StepRecord, over: bool, says: str) -> None:
    error = silent_steps(["lo*"], [step, StepRecord("other", "not run")], {}, over=over)
    assert error.exit_code == 4
    assert error.message.startswith("Step 'load' ") and error.message.endswith(says)


def test_a_step_without_lines_says_what_the_run_has_said_of_it() -> None:
    told = {"load": "Step `load` is not run: `fetch` did not succeed."}
    error = silent_steps(["load"], [StepRecord("load", "not run")], told, over=True)
    assert error.message == "Step 'load' has not run: `fetch` did not succeed."
