"""Which submissions need ZenML's own client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modalrun.plan.conditions import (
    Conditions,
    ServerState,
    cacheable,
    gathers_here,
    unusual,
)
from modalrun.plan.deployment import CompiledStep, Deployment, read_snapshot
from modalrun.plan.image_layers import GATHERED
from modalrun.plan.planner import make_plan
from modalrun.plan.stack import Component, StackDescription
from modalrun.run.run_plan import PlannedStep, Target
from tests.unit.plan.test_deployment_file import snapshot

STACK = StackDescription("st", "prod", (Component("artifact_store", "s3", "s3"),), "https://z.test")
CONDITIONS = Conditions(
    "0.98.0", "pr", {"st": "monday", "or": "monday"}, {"s0": "key"}, "", True, False
)
NOW = ServerState(
    "0.98.0", "OAUTH2_PASSWORD_BEARER", "other", "pr", {"st": "monday", "or": "monday"}
)


def reason(
    content: dict[str, Any] | None = None,
    *,
    target: Target = "modal",
    stack: StackDescription = STACK,
    conditions: Conditions = CONDITIONS,
    now: ServerState = NOW,
    zenml: str = "0.98.0",
) -> str | None:
    content = content or snapshot()
    deployment = read_snapshot(content)
    plan = make_plan(
        deployment,
        target=target,
        source_root=Path("/nowhere"),
        python_version="3.11",
        engine_packages=(),
    )
    return unusual(
        plan,
        deployment,
        content,
        description=stack,
        conditions=conditions,
        now=now,
        zenml=zenml,
    )


def test_a_usual_submission() -> None:
    assert reason() is None
    local = replace(CONDITIONS, built=False, has_token=True)
    assert reason(target="local", conditions=local) is None


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"version": "0.97.0"}, "versions of ZenML"),
        ({"version": "1.0.0"}, "versions of ZenML"),
        ({"login": "NO_AUTH"}, "no usual login"),
        ({"login": "EXTERNAL"}, "no usual login"),
        ({"kind": "cloud"}, "ZenML Pro"),
        ({"project": "other"}, "another project"),
        ({"stack": {"st": "tuesday", "or": "monday"}}, "stack has changed"),
        ({"stack": {"st": "monday", "or": "tuesday"}}, "stack has changed"),
        ({"stack": {"st": "monday"}}, "stack has changed"),
        ({"stack": {"st": "monday", "or": "monday", "new": "monday"}}, "stack has changed"),
    ],
)
def test_the_server_is_not_as_it_was(changed: dict[str, Any], expected: str) -> None:
    assert expected in str(reason(now=replace(NOW, **changed)))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"zenml": "0.97.0"}, "versions of ZenML"),
        ({"has_token": True}, "Modal token"),
        ({"built": False}, "another target"),
        ({"cache_keys": {}}, "cache key"),
        ({"cache_keys": {"s1": "key"}}, "cache key"),
    ],
)
def test_compiling_it_left_something_open(changed: dict[str, Any], expected: str) -> None:
    assert expected in str(reason(conditions=replace(CONDITIONS, **changed)))


def test_another_zenml_is_installed_now() -> None:
    assert "versions of ZenML" in str(reason(zenml="0.98.1"))


def test_a_registry_may_need_a_login() -> None:
    registry = Component("container_registry", "ecr", "aws")
    assert "registry" in str(reason(stack=replace(STACK, components=(registry,))))


def operator(content: dict[str, Any]) -> None:
    content["step_configurations"]["s1"]["config"]["step_operator"] = "vertex"


def replay(content: dict[str, Any]) -> None:
    content["pipeline_configuration"]["steps_to_skip"] = ["s0"]


def built(content: dict[str, Any]) -> None:
    settings = content["pipeline_configuration"]["settings"]
    settings["orchestrator:default"]["image"] = {"source": "registry"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [(operator, "step operator"), (replay, "replays"), (built, "builds an image")],
)
def test_what_it_is_compiled_to_is_rare(
    change: Callable[[dict[str, Any]], None], expected: str
) -> None:
    content = snapshot()
    change(content)
    assert expected in str(reason(content))


def test_without_caching_no_key_is_needed() -> None:
    content = snapshot()
    content["step_configurations"]["s0"]["config"]["enable_cache"] = False
    assert reason(content, conditions=replace(CONDITIONS, cache_keys={})) is None


def test_only_steps_that_wait_for_none_are_looked_up() -> None:
    steps = (
        CompiledStep(PlannedStep("a", caches=True)),
        CompiledStep(PlannedStep("b")),
        CompiledStep(PlannedStep("c", upstream=("a",), caches=True)),
    )
    assert cacheable(Deployment("p", steps)) == ["a"]
    assert cacheable(Deployment("p", steps, dynamic=True)) == []


@pytest.mark.parametrize(
    ("docker", "expected"),
    [
        ({GATHERED: {}}, False),
        ({"skip_build": True}, False),
        ({}, True),
        ({GATHERED: {}, "requirements": ["numpy"]}, False),
        ({GATHERED: {}, "requirements": "requirements.txt"}, True),
        ({GATHERED: {}, "pyproject_path": "pyproject.toml"}, True),
        ({GATHERED: {}, "replicate_local_python_environment": True}, True),
        ({GATHERED: {}, "disable_automatic_requirements_detection": False}, True),
        ({GATHERED: {}, "disable_automatic_requirements_detection": True}, False),
    ],
)
def test_packages_of_the_submitting_machine(docker: dict[str, Any], expected: bool) -> None:
    assert gathers_here(docker) is expected
