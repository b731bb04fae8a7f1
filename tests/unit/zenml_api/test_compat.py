"""Differences between ZenML's versions."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from modalrun.zenml_api import compat


def test_zenml_remembers_more_steps_than_a_hundred(monkeypatch: pytest.MonkeyPatch) -> None:
    context = pytest.importorskip("zenml.execution.context")
    monkeypatch.setenv("ZENML_EXECUTION_CONTEXT_STEP_RUN_CACHE_SIZE", "2")
    step = SimpleNamespace(status=SimpleNamespace(is_successful=True))

    with compat.execution_context(None):
        for number in range(500):
            step.name = str(number)
            context.record_step_run(step)

        assert len(context.ExecutionContext.get().step_runs) == 500
