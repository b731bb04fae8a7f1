"""Snapshots of ZenML are read as deployments."""

from typing import Any

import pytest

from modalrun.plan.deployment import CompiledStep, Deployment, read_snapshot
from modalrun.run.run_plan import PlannedStep
from modalrun.spec.precedence import Origin, SettingsLayer


def snapshot(pipeline: dict[str, Any], **config: Any) -> dict[str, Any]:
    """The part of ZenML's snapshot that is read, with one step."""
    return {
        "pipeline_configuration": {
            "name": "p",
            "execution_mode": "fail_fast",
            "settings": {},
            **pipeline,
        },
        "step_configurations": {
            "a": {
                "spec": {"upstream_steps": ["b"]},
                "config": {"settings": {}, **config},
                "step_config_overrides": {"settings": {}},
            }
        },
    }


def test_retries_of_a_step() -> None:
    retry = {"max_retries": 3, "delay": 2, "backoff": 0}
    (step,) = read_snapshot(snapshot({}, retry=retry)).steps
    assert (step.planned.retries, step.planned.delay, step.planned.backoff) == (3, 2, 0)
    (step,) = read_snapshot(snapshot({}, retry=None)).steps
    assert (step.planned.retries, step.planned.delay, step.planned.backoff) == (0, 0, 1)


@pytest.mark.parametrize("pipeline", [None, True, False])
@pytest.mark.parametrize("step", [None, True, False])
def test_caching_is_decided_as_zenml_does(pipeline: bool | None, step: bool | None) -> None:
    from zenml.orchestrators.utils import is_setting_enabled

    deployment = read_snapshot(snapshot({"enable_cache": pipeline}, enable_cache=step))
    assert deployment.steps[0].planned.caches == is_setting_enabled(
        is_enabled_on_step=step, is_enabled_on_pipeline=pipeline
    )
    assert not deployment.with_caching(False).steps[0].planned.caches
    assert deployment.with_caching(True).steps[0].planned.caches


def test_failure_mode() -> None:
    assert read_snapshot(snapshot({})).failure_mode == "fail_fast"


def test_docker_settings_of_a_step_in_the_spec_keep_those_of_the_pipeline() -> None:
    compiled = Deployment(
        "x", (CompiledStep(PlannedStep("train")),), docker={"requirements": ["numpy"]}
    )
    layer = SettingsLayer(docker={"apt_packages": ["git"]})

    (step,) = compiled.with_layers({}, {"train": {Origin.SPEC_STEP: layer}}).steps

    assert step.docker == {"requirements": ["numpy"], "apt_packages": ["git"]}
