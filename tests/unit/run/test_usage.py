"""What a step has used, as ZenML's metadata hold it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modalrun.run.usage import (
    KEY,
    StepUsage,
    UsagePoint,
    usage_from_metadata,
    usage_to_metadata,
)

USAGE = StepUsage(
    began=1_764_000_000.5,
    seconds=6.0,
    cpu_seconds=3.0,
    peak_cores=0.98,
    peak_memory=812,
    mean_memory=500,
    gpu=4,
    peak_gpu_memory=2_000,
    gpu_memory=40_960,
    points=(UsagePoint(2.0, 0.98, 812, 4, 2_000), UsagePoint(6.0, 0.26, 300)),
)


def test_usage_survives_zenmls_metadata() -> None:
    stored = json.loads(json.dumps(usage_to_metadata(USAGE)))
    assert usage_from_metadata({**stored, "other": 1}) == USAGE
    assert USAGE.mean_cores == 0.5


@pytest.mark.parametrize(
    "wrong",
    [{"cpu_seconds": "3"}, {"points": [[1, 2]]}, {"peak_memory": -1}, {"more": 1}],
)
def test_usage_that_makes_no_sense_is_taken_as_unknown(wrong: dict[str, Any]) -> None:
    stored = usage_to_metadata(USAGE)
    assert usage_from_metadata({KEY: {**stored[KEY], **wrong}}) is None
    assert usage_from_metadata({KEY: "text"}) is None
    assert usage_from_metadata({}) is None
