"""What a worker loads of a run for the forks that run its next steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from modalrun.zenml_api.execution import steps


def snapshot(*names: str) -> Any:
    spec = [SimpleNamespace(invocation_id=name) for name in names]
    return SimpleNamespace(pipeline_spec=SimpleNamespace(steps=spec))


def test_the_steps_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = snapshot("a", "b", "c", "d")
    assert steps._following(chain, "b") == ["c", "d"]
    assert steps._following(chain, "d") == []
    monkeypatch.setattr(steps, "AHEAD_STEPS", 1)
    assert steps._following(chain, "a") == ["b"]


def test_a_dynamic_pipeline_names_no_steps() -> None:
    assert steps._following(snapshot(), "a") == []
    assert steps._following(snapshot("template"), "a") == []
    none: Any = SimpleNamespace(pipeline_spec=None)
    assert steps._following(none, "a") == []


class Loaded:
    def __init__(self) -> None:
        self.snapshot = SimpleNamespace(step_configurations={"a": None, "b": None})
        self.requested: list[list[str]] = []

    def load_snapshot(self, only: list[str]) -> None:
        self.requested.append(only)


def test_a_step_that_was_loaded_ahead_is_not_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = Loaded()
    monkeypatch.setitem(steps._ahead, "run", loaded)  # type: ignore[arg-type]
    for step in ("a", "b", "z"):
        found: Any = steps.load("run", step)
        assert found is loaded
    assert loaded.requested == [["z"]]
