"""Inline steps of a dynamic run."""

from __future__ import annotations

from pathlib import Path

import pytest
from zenml.config.pipeline_configurations import PipelineConfiguration
from zenml.config.step_configurations import StepConfiguration

from modalrun.run import contract
from modalrun.zenml_api.execution.inline_steps import InlineSteps


@pytest.mark.parametrize("isolates", [True, False])
def test_settings_that_need_a_sandbox_of_their_own_are_named_once(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    isolates: bool,
) -> None:
    monkeypatch.setenv(contract.RUNNING_STEPS_FILE, str(tmp_path / "steps"))
    shared = {"timeout": 600, "region": "us-east", "gpu": "T4"}
    pipeline = PipelineConfiguration(name="training", settings={"orchestrator": shared})
    inline = InlineSteps(pipeline, None, lambda: None, isolates)
    plain = StepConfiguration(name="load", settings={"orchestrator": {"region": "us-east"}})
    own = StepConfiguration(name="train", settings={"orchestrator": {**shared, "timeout": 60}})

    for name, config in (("load", plain), ("train", own), ("train_2", own)):
        with inline.running("run", name, config):
            pass

    told = (
        "note: step `train` runs in the run sandbox, where these settings have no effect: gpu,"
        ' timeout. With runtime="isolated" it gets one of its own.\n'
    )
    assert capsys.readouterr().err == (told if isolates else "")
