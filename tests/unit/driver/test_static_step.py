"""Tell from ZenML's records whether a lost sandbox hides a failure of its step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from modalrun.driver.graph.static_step import has_failed


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
    assert has_failed(state, failures) is failed


def test_a_sandbox_that_was_lost_before_its_step_began() -> None:
    assert not has_failed(None, 0)
