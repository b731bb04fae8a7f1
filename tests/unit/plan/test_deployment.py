"""Snapshots of ZenML are read as deployments."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.errors import UsageError
from modalrun.plan.deployment import CompiledStep, Deployment, read_snapshot, with_settings
from modalrun.plan.planner import make_plan
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
                "spec": {"upstream_steps": []},
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


def test_a_duration_in_a_stored_snapshot() -> None:
    settings = {"orchestrator:modal_orch": {"timeout": "2h", "pod_settings": {}}}
    (layer,) = read_snapshot(snapshot({"settings": settings})).layers.values()
    assert layer.settings == {"timeout": 7200}


def test_failure_mode() -> None:
    assert read_snapshot(snapshot({})).failure_mode == "fail_fast"


def test_docker_settings_of_a_step_in_the_spec_keep_those_of_the_pipeline() -> None:
    compiled = Deployment(
        "x", (CompiledStep(PlannedStep("train")),), docker={"requirements": ["numpy"]}
    )
    layer = SettingsLayer(docker={"apt_packages": ["git"]})

    (step,) = compiled.with_layers({}, {"train": {Origin.SPEC_STEP: layer}}).steps

    assert step.docker == {"requirements": ["numpy"], "apt_packages": ["git"]}


values = st.fixed_dictionaries(
    {},
    optional={
        "gpu": st.sampled_from(["T4", "A100:2", ["H100", "L4"]]),
        "timeout": st.sampled_from([60, 600]),
        "region": st.sampled_from(["us-east", ["eu-west", "us"]]),
        "secrets": st.just(["a-secret"]),
        "volumes": st.sampled_from([{"v": "/v"}, {"w": "/w"}]),
        "mode": st.just("per_step"),
    },
)
amounts = st.fixed_dictionaries(
    {},
    optional={
        "gpu_count": st.sampled_from([0, 1, 2]),
        "memory": st.sampled_from(["1GiB", "4GiB"]),
        "cpu_count": st.sampled_from([1.0, 2.0]),
    },
)
dockers = st.dictionaries(st.just("apt_packages"), st.sampled_from([["git"], ["curl"]]))
sections = st.tuples(values, amounts, dockers)


def section(key: str, of: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return {k: v for k, v in zip((key, "resources", "docker"), of, strict=True) if v}


@given(sections, sections, st.dictionaries(st.sampled_from([1, 2, 3]), sections), sections)
def test_what_a_spec_changes_is_stored_so_that_the_plan_is_the_same(
    of_pipeline: tuple[dict[str, Any], ...],
    of_step: tuple[dict[str, Any], ...],
    changes: dict[int, tuple[dict[str, Any], ...]],
    of_step_in_spec: tuple[dict[str, Any], ...],
) -> None:
    docker = {**of_pipeline[2], **of_step[2]}
    stored = snapshot(
        {"settings": section("orchestrator:mine", of_pipeline)},
        settings={"docker": docker} if docker else {},
    )
    overrides = stored["step_configurations"]["a"]["step_config_overrides"]
    overrides["settings"] = section("orchestrator:other", of_step)
    layers = {Origin(rank): SettingsLayer(*of) for rank, of in changes.items() if rank != 2}
    changed = read_snapshot(stored).with_layers(
        layers, {"a": {Origin.SPEC_STEP: SettingsLayer(*of_step_in_spec)}}
    )

    def planned(read: Callable[[], Deployment]) -> Any:
        try:
            plan = make_plan(
                read(),
                target="modal",
                source_root=Path("/s"),
                python_version="3.11",
                engine_packages=("zenml==1",),
            )
        except UsageError:
            return "refused"
        return plan.settings, plan.run_sandbox, plan.steps, plan.images

    def again() -> Deployment:
        return read_snapshot(with_settings(stored, changed, "orchestrator:mine"))

    assert planned(again) == planned(lambda: changed)


def test_the_modules_of_the_source_root_are_known() -> None:
    def source(module: str, kind: str) -> dict[str, str]:
        return {"module": module, "attribute": "x", "type": kind}

    made = snapshot({})
    step = made["step_configurations"].pop("a")
    kinds = ("user", "code_repository", "distribution_package", "internal", "unknown")
    made["step_configurations"] = {
        kind: {**step, "spec": {"upstream_steps": [], "source": source(f"m.{kind}", kind)}}
        for kind in kinds
    }
    made["pipeline_spec"] = {"source": source("flow", "user")}
    assert read_snapshot(made).modules == ("m.user", "m.code_repository")
    assert read_snapshot({**made, "is_dynamic": True}).modules[-1] == "flow", "it runs there"
