"""What the records of ZenML say about a try that ended badly."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from modalrun.driver.coordinator import _has_failed, _Tries


@pytest.mark.parametrize(
    ("status", "attempt", "finished", "failures", "failed"),
    [
        # Nobody has recorded an end.
        ("running", 1, False, 0, False),
        # The failure is that of the try before, whose retry was lost before it had a record.
        ("retrying", 1, False, 1, False),
        # The step had recorded its failure before its sandbox was lost.
        ("retrying", 1, False, 0, True),
        ("retrying", 2, False, 1, True),
        ("failed", 2, True, 1, True),
    ],
)
def test_whether_a_lost_sandbox_hides_a_failure(
    status: str, attempt: int, finished: bool, failures: int, failed: bool
) -> None:
    state: Any = SimpleNamespace(status=status, attempt=attempt, finished=finished)
    assert _has_failed(state, _Tries(failures=failures)) is failed


def test_a_sandbox_that_was_lost_before_its_step_began() -> None:
    assert not _has_failed(None, _Tries())
