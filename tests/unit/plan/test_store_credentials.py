"""Whether the sandboxes of a run can log in to the artifact store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modalrun.plan.deployment import CompiledStep, Deployment, read_snapshot
from modalrun.plan.environment import gives_credentials
from modalrun.plan.planner import make_plan
from modalrun.plan.stack import Component, StackDescription
from modalrun.plan.store_credentials import held_by, missing
from modalrun.run.run_plan import PlannedStep
from modalrun.spec.precedence import Origin, SettingsLayer

STACK = StackDescription(
    "i", "prod", (Component("artifact_store", "my s3", "s3", ambient=True),), "https://z.test"
)
PER_STEP = {"mode": "per_step"}
SECRET = {"secrets": ["aws"]}


def step(name: str, docker: dict[str, Any] | None = None, **settings: Any) -> CompiledStep:
    return CompiledStep(PlannedStep(name), {Origin.CODE_STEP: SettingsLayer(settings)}, docker)


def found(
    *steps: CompiledStep,
    settings: dict[str, Any] | None = None,
    stack: StackDescription = STACK,
    **deployment: Any,
) -> list[str]:
    made = Deployment(
        "p", steps, {Origin.CODE_PIPELINE: SettingsLayer(settings or {})}, **deployment
    )
    plan = make_plan(
        made,
        target="modal",
        source_root=Path("/nowhere"),
        python_version="3.11",
        engine_packages=(),
    )
    return missing(stack, plan, made)


@pytest.mark.parametrize("settings", [{}, PER_STEP])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_store_that_needs_this_machines_environment(
    settings: dict[str, Any], dynamic: bool
) -> None:
    (sentence,) = found(step("load"), step("train"), settings=settings, dynamic=dynamic)
    assert "The artifact store 'my s3' (s3)" in sentence
    for way in ('connect "my s3"', "--authentication_secret", "'settings: orchestrator: secrets:'"):
        assert way in sentence
    assert "'load'" not in sentence


@pytest.mark.parametrize("mode", [{}, PER_STEP])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "way",
    [
        {"settings": SECRET},
        {"docker": {"environment": {"AWS_ROLE_ARN": "arn:..."}}},
        {"docker": {"runtime_environment": {"GOOGLE_APPLICATION_CREDENTIALS": "/data/key"}}},
        {"has_credentials": True},
    ],
)
def test_every_way_to_credentials(mode: dict[str, Any], dynamic: bool, way: dict[str, Any]) -> None:
    whole = {**way, "settings": {**mode, **way.get("settings", {})}, "dynamic": dynamic}
    assert found(step("load"), step("train"), **whole) == []
    assert found(**whole) == []


def test_the_steps_that_have_none_are_named() -> None:
    docker = {"environment": {"AZURE_STORAGE_CONNECTION_STRING": "x"}}
    steps = (
        *(step("a", **SECRET), step("b", docker), step("c")),
        CompiledStep(PlannedStep("d"), has_credentials=True),
    )
    (sentence,) = found(*steps, settings=PER_STEP)
    assert "no sandbox has (step 'c')." in sentence
    assert found(*steps[:2], steps[3], settings=PER_STEP) == []


def test_a_stack_without_such_a_store() -> None:
    store = Component("artifact_store", "s3", "s3")
    assert found(step("a"), stack=StackDescription("i", "prod", (store,))) == []


@pytest.mark.parametrize(
    ("config", "held"),
    [
        ({"path": "s3://b"}, False),
        ({"path": "s3://b", "client_kwargs": {"endpoint_url": "http://minio:9000"}}, False),
        ({"path": "s3://b", "s3_additional_kwargs": {"SSEKMSKeyId": "k"}}, False),
        ({"path": "s3://b", "authentication_secret": "", "key": None}, False),
        ({"path": "s3://b", "key": "AKIA", "secret": "x"}, True),
        ({"path": "s3://b", "token": "x"}, True),
        ({"path": "gs://b", "authentication_secret": "gcp"}, True),
        ({"path": "s3://b", "client_kwargs": {"aws_access_key_id": "AKIA"}}, True),
        ({"path": "az://b", "account_key": "x"}, True),
        ({"path": "az://b", "connection_string": "x"}, True),
    ],
)
def test_credentials_in_a_configuration(config: dict[str, Any], held: bool) -> None:
    assert held_by(config) is held


@pytest.mark.parametrize(
    ("name", "gives"),
    [
        *(("AWS_ACCESS_KEY_ID", True), ("AWS_WEB_IDENTITY_TOKEN_FILE", True)),
        *(("AZURE_CLIENT_ID", True), ("GOOGLE_APPLICATION_CREDENTIALS", True)),
        *(("AWS_DEFAULT_REGION", False), ("AWS_PROFILE", False), ("WANDB_API_KEY", False)),
    ],
)
def test_variables_with_credentials(name: str, gives: bool) -> None:
    assert gives_credentials([name]) is gives


@pytest.mark.parametrize(
    ("config", "gives"),
    [
        ({}, False),
        ({"environment": {"RATE": 1}, "secrets": []}, False),
        ({"environment": {"AWS_SECRET_ACCESS_KEY": "x"}}, True),
        ({"secrets": ["f4a8f2f4-0c3c-4a8f-9a53-8f5f6a8f2b11"]}, True),
    ],
)
def test_what_zenml_gives_to_a_process(config: dict[str, Any], gives: bool) -> None:
    def snapshot(pipeline: dict[str, Any], of_step: dict[str, Any]) -> dict[str, Any]:
        config = {"name": "p", "execution_mode": "fail_fast", "settings": {}, **pipeline}
        one = {
            "spec": {"upstream_steps": []},
            "config": {"settings": {}, **of_step},
            "step_config_overrides": {"settings": {}},
        }
        return {"pipeline_configuration": config, "step_configurations": {"a": one}}

    assert read_snapshot(snapshot(config, {})).has_credentials is gives
    assert read_snapshot(snapshot({}, config)).steps[0].has_credentials is gives
