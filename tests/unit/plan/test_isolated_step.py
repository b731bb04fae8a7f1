"""The sandbox of a step that a dynamic pipeline adds during the run."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from modalrun.errors import UsageError
from modalrun.plan.deployment import CompiledStep, Deployment
from modalrun.plan.isolated_step import layers_as_json, plan_isolated_step
from modalrun.plan.planner import make_plan
from modalrun.run.manifest import RunManifest
from modalrun.run.run_plan import PlannedStep, RunPlan, RunSettings
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.run.step_request import StepRequest
from modalrun.spec.precedence import Origin, SettingsLayer

RECORD = UUID(int=1)
DRIVER = SandboxSpec(("python",), "im-pipeline", Resources(), 300, env={"PYTHONPATH": "/x"})
OTHER = {"PYTHONPATH": "/y"}
MANIFEST = RunManifest(
    run_id="r",
    plan=RunPlan(
        "local",
        "growing",
        RunSettings(app_name="a", mode="per_step"),
        DRIVER,
        (
            PlannedStep(
                "train", sandbox=replace(DRIVER, image="im-train", env={"PYTHONPATH": "/y"})
            ),
        ),
    ),
    failure_mode="stop_on_failure",
    docker="numpy",
)
PLANNING: Any = {
    "target": "local",
    "source_root": Path("/s"),
    "python_version": "3.11",
    "engine_packages": (),
}


def sandbox(
    manifest: RunManifest = MANIFEST,
    template: str | None = None,
    docker: str = "numpy",
    **settings: Any,
) -> SandboxSpec:
    request = StepRequest(
        name="square_2",
        step_run=RECORD,
        run_id=RECORD,
        attempt=1,
        settings=settings,
        docker=docker,
        template=template,
    )
    return plan_isolated_step(manifest, request, source_root=Path("/s")).sandbox


def test_a_step_gets_its_settings_and_the_pipelines_image() -> None:
    made = sandbox(
        **{
            "orchestrator:modal_orch": {"gpu": "T4", "timeout": 200, "region": "us-east"},
            "resources": {"gpu_count": 2, "memory": "2GiB", "cpu_count": 4},
        }
    )
    assert made.command == ("python3", "-m", "modalrun.driver.supervisor", "modalrun.driver.step")
    assert made.resources == Resources(("T4:2",), cpu=4, memory=2048)
    assert (made.timeout, made.regions) == (200, ("us-east",))
    assert (made.image, made.env["PYTHONPATH"]) == ("im-pipeline", "/x")


def test_an_announced_step_has_the_image_that_was_built_for_it() -> None:
    made = sandbox(template="train", docker="torch")
    assert (made.image, made.env["PYTHONPATH"]) == ("im-train", "/y")


def test_another_image_was_not_built() -> None:
    with pytest.raises(UsageError, match="'square_2' has Docker settings of its own") as caught:
        sandbox(docker="torch")
    assert "depends_on" in str(caught.value.hint)


def test_a_step_chooses_neither_command_nor_image_nor_environment() -> None:
    made = sandbox(orchestrator={"command": ["sh"], "image": {"name": "others"}, "env": {"X": "1"}})
    plain = sandbox()
    assert (made.command, made.image, made.env) == (plain.command, plain.image, plain.env)


@pytest.mark.parametrize(
    "settings",
    [{"secrets": ["others"]}, {"volumes": {"others": "/data"}}],
    ids=["secret", "volume"],
)
def test_a_step_gets_no_secret_or_volume_that_the_run_was_not_submitted_with(
    settings: dict[str, Any],
) -> None:
    with pytest.raises(UsageError, match=r"'square_2' asks for the Modal .* 'others'") as caught:
        sandbox(orchestrator=settings)
    assert "depends_on" in str(caught.value.hint)
    known = replace(DRIVER, secrets=("others",), volumes={"others": "/mnt"})
    with_it = replace(MANIFEST, plan=replace(MANIFEST.plan, run_sandbox=known))
    made = sandbox(with_it, orchestrator=settings)
    assert (made.secrets or tuple(made.volumes)) == ("others",)


def test_the_command_line_is_above_the_code_and_the_component_below_it() -> None:
    places = {
        Origin.COMMAND_LINE: SettingsLayer(resources={"memory": "8GiB"}),
        Origin.CODE_PIPELINE: SettingsLayer({"gpu": "A100"}),
        Origin.COMPONENT: SettingsLayer({"gpu": "T4", "cloud": "gcp"}),
    }
    held = RunManifest.from_json(replace(MANIFEST, layers=layers_as_json(places)).to_json())
    made = sandbox(held, orchestrator={"gpu": "L4"}, resources={"gpu_count": 1, "memory": "1GiB"})
    assert (made.resources.gpus, made.resources.memory, made.cloud) == (("L4",), 8192, "gcp")
    assert sandbox(held, resources={"gpu_count": 1}).resources.gpus == ("T4",)


@pytest.mark.parametrize(("run", "own", "expected"), [(86_400, "20h", 72_000), (60, "2h", 60)])
def test_the_runs_timeout_bounds_that_of_a_step(run: int, own: str, expected: int) -> None:
    driver = replace(DRIVER, timeout=run)
    held = replace(MANIFEST, plan=replace(MANIFEST.plan, run_sandbox=driver))
    assert sandbox(held, orchestrator={"timeout": own}).timeout == expected
    assert sandbox(held).timeout == run


@pytest.mark.parametrize("mode", ["pipeline", "per_step"])
def test_a_dynamic_pipelines_function_runs_in_the_run_sandbox(mode: str) -> None:
    deployment = Deployment(
        "growing",
        (),
        {
            Origin.CODE_PIPELINE: SettingsLayer(
                {"mode": mode, "secrets": ["s"], "max_parallelism": 3}
            )
        },
        dynamic=True,
    )
    plan = make_plan(deployment, **PLANNING)
    assert plan.dynamic
    assert "modalrun.driver.dynamic" in plan.run_sandbox.command
    assert plan.run_sandbox.secrets == ("s",)
    assert plan.steps == ()


@pytest.mark.parametrize(
    ("step", "shared", "inline"),
    [
        ({}, {}, True),
        ({"layers": {Origin.CODE_STEP: SettingsLayer({"gpu": "A100"})}}, {}, True),
        ({"layers": {Origin.CODE_STEP: SettingsLayer({"gpu": "A100:2"})}}, {}, False),
        ({}, {"memory": "8GiB"}, False),
        ({"runtime": "isolated"}, {}, False),
        ({"docker": {"requirements": ["torch"]}}, {}, False),
        ({"docker": {"requirements": ["torch"]}, "runtime": "inline"}, {}, True),
    ],
)
def test_the_plan_says_of_an_announced_step_that_it_may_have_no_sandbox(
    step: dict[str, Any], shared: dict[str, Any], inline: bool
) -> None:
    pipeline = {Origin.CODE_PIPELINE: SettingsLayer({"mode": "per_step"}, shared)}
    deployment = Deployment(
        "p", (CompiledStep(PlannedStep("train"), **step),), pipeline, dynamic=True
    )
    for one in (deployment, replace(deployment, dynamic=False)):
        notes = make_plan(one, **PLANNING).notes
        assert any("runs in the run sandbox" in note for note in notes) == (inline and one.dynamic)


def test_the_plan_says_that_inline_steps_have_no_gpu() -> None:
    pipeline = {Origin.CODE_PIPELINE: SettingsLayer({"mode": "per_step", "gpu": "T4"})}
    made = make_plan(Deployment("p", (), pipeline, dynamic=True), **PLANNING)
    assert "gpu: for isolated steps only, inline ones run in the run sandbox" in made.notes
