"""Record how a step has ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from modalrun.zenml_api.records import step_records, stores


def test_a_step_has_ended_when_its_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever records it may need seconds to import ZenML."""
    changes: dict[str, Any] = {}
    store = SimpleNamespace(update_step=lambda _, **given: changes.update(given))
    monkeypatch.setattr(stores, "current", lambda: store)
    step_records.end_step("some-step", "failed", "It died.", ended=1_700_000_000.25)
    assert changes["end_time"] == "2023-11-14T22:13:20.250000"
