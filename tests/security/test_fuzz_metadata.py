"""Metadata and records that somebody else has written, through everything that shows a run."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from dataclasses import fields
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.observe.cost import estimate
from modalrun.observe.list_runs import ListedRun
from modalrun.output import run_list, status_json, status_text
from modalrun.plan.pricing import LIST_PRICES
from modalrun.run.failure import Failure
from modalrun.run.metadata import (
    PREFIX,
    Announced,
    RunMetadata,
    StepMetadata,
    from_metadata,
    to_metadata,
    wrong_keys,
)
from modalrun.run.records import RunRecord, StepRecord
from modalrun.run.status import SandboxState, derive_status
from tests.security.growth import assert_linear
from tests.unit.fakes import NOW, RUN_ID

GOOD = to_metadata(RunMetadata("local", "per_step", "app", "ap-1", "sb-1", 60, gpu="T4", cpu=0.5))
KEYS = sorted(
    {
        f"{PREFIX}{field.name}"
        for cls in (RunMetadata, Announced, StepMetadata)
        for field in fields(cls)
    }
)
OF_STEPS = ("step_waits", "hints")
"""Mappings, which may be empty."""

TEXT = st.text(st.characters(exclude_categories=[]), max_size=30)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**18, max_value=10**40)
    | st.floats()
    | TEXT
    | st.sampled_from(
        [
            *("x" * 1_000_000, "\ud800", "\x1b]52;c;aGk=\x07", "\n::error::", "", "a,,b"),
            *("T4:", "A100:99999999", "10000-01-01", "modal", "sb-1,sb-2", "sb-1\n"),
        ]
    )
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)
METADATA = st.dictionaries(st.sampled_from(KEYS) | TEXT, VALUES, max_size=6)
MOMENTS = st.none() | st.datetimes(
    datetime(2, 1, 1), datetime(9998, 12, 31), timezones=st.just(timezone.utc)
)


def shown(run: RunRecord, steps: list[StepRecord]) -> str:
    """Show a run in every way; return the text."""
    now = NOW + timedelta(hours=1)
    listed = [ListedRun(run, estimate(run, steps, now, LIST_PRICES))]
    json.loads(run_list.as_json(listed))
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with redirect_stdout(terminal):
        run_list.print_list(listed)
        for state in (SandboxState("running"), SandboxState("unknown", problem="?")):
            status = derive_status(run, steps, state)
            json.loads(status_json.as_json(status))
            status_text.print_status(status)
        terminal.flush()
    return terminal.buffer.getvalue().decode()  # type: ignore[attr-defined]


def record(metadata: dict[str, Any], **more: Any) -> RunRecord:
    return RunRecord(
        RUN_ID,
        **{"name": "a-run", "pipeline": "training", "status": "running", "created": NOW} | more,
        metadata=from_metadata(RunMetadata, metadata),
        announced=from_metadata(Announced, metadata),
        wrong_metadata=wrong_keys(metadata),
    )


@given(changed=METADATA, of_step=METADATA, began=MOMENTS, ended=MOMENTS, reason=st.none() | TEXT)
def test_no_metadata_breaks_what_shows_a_run(
    changed: dict[str, Any],
    of_step: dict[str, Any],
    began: datetime | None,
    ended: datetime | None,
    reason: str | None,
) -> None:
    run = record({**GOOD, f"{PREFIX}target": "modal", **changed}, start=began, end=ended)
    step = StepRecord(
        "train",
        "failed",
        start=began,
        end=ended,
        failure=None if reason is None else Failure(reason, reason, reason, (reason,)),
        metadata=from_metadata(StepMetadata, {f"{PREFIX}sandbox_id": "sb-1", **of_step}),
    )
    shown(run, [step])


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "value",
    [[], {}, {"a": {"b": []}}, 10**30, float("nan"), float("inf"), "\x1b[2J", "\ud800", ""],
    ids=repr,
)
def test_one_wrong_value_is_unknown_and_the_rest_is_known(key: str, value: Any) -> None:
    metadata = {**GOOD, key: value}
    run = record(metadata)
    of_a_run = key.removeprefix(PREFIX) in {
        field.name for cls in (RunMetadata, Announced) for field in fields(cls)
    }
    if (key, value) in [(f"{PREFIX}waiting", ""), *((f"{PREFIX}{n}", {}) for n in OF_STEPS)]:
        # The run, or its steps, have none.
        assert run.wrong_metadata == ()
        return
    assert run.wrong_metadata == ((key,) if of_a_run else ())
    text = shown(run, [])
    assert "\x1b[2J" not in text and "\x1b]52" not in text
    essential = {f"{PREFIX}{n}" for n in ("target", "mode", "app", "app_id", "sandbox_id")}
    assert (run.metadata is None) == (key in essential)
    assert (run.announced is None) == (
        key in essential - {f"{PREFIX}app_id", f"{PREFIX}sandbox_id"}
    )
    if of_a_run:
        assert f"taken as unknown: {key}." in text.replace("\n", " ")
    if of_a_run and run.metadata is not None:
        assert run.metadata == from_metadata(
            RunMetadata, {name: given for name, given in GOOD.items() if name != key}
        )


def test_a_run_that_says_nothing_right_is_listed() -> None:
    text = shown(record({key: {"a": 1} for key in KEYS}), [])
    assert "a-run" in text and "?" in text


@pytest.mark.parametrize(
    "gpu", ["T4:", "T4:x", "T4:0", f"T4:{'9' * 900}", "T4:²", "T4:-1", "H100!", ":"]
)
@pytest.mark.parametrize("regions", [",,,", "eu," * 300, "?", ""])
def test_odd_resources_have_a_cost_or_none(gpu: str, regions: str) -> None:
    odd = {"gpu": gpu, "regions": regions, "cpu": 1e6, "memory": 10**9, "target": "modal"}
    run = record({**GOOD, **{f"{PREFIX}{name}": value for name, value in odd.items()}})
    assert "a-run" in shown(run, [])


def test_modal_is_not_asked_about_what_is_no_sandbox() -> None:
    metadata = from_metadata(RunMetadata, {**GOOD, f"{PREFIX}sandbox_id": "ap-1/../x"})
    assert metadata is None
    earlier = from_metadata(RunMetadata, {**GOOD, f"{PREFIX}earlier": "sb-1,../x"})
    assert earlier is not None and earlier.earlier_sandboxes == ()


def test_long_values_take_linear_time() -> None:
    for key in KEYS:
        assert_linear(
            lambda text, key=key: from_metadata(RunMetadata, {**GOOD, key: text}),  # type: ignore[misc]
            lambda size: "sb-1," * size,
            100_000,
        )
