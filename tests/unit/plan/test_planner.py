"""The plan of a deployment."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.errors import UsageError
from modalrun.plan.deployment import CompiledStep, Deployment
from modalrun.plan.image_recipe import ImageRecipe
from modalrun.plan.model import Plan
from modalrun.plan.planner import app_name, make_plan
from modalrun.run.run_plan import PlannedStep, Target
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.run.tags import MAX_TAG, fit
from modalrun.spec.precedence import Origin, SettingsLayer

RUN_ID = "0b0e7a52-6b43-4c32-a2b0-1f6d4cb30b52"


def view(
    name: str,
    upstream: tuple[str, ...] = (),
    settings: dict[str, Any] | None = None,
    resources: dict[str, Any] | None = None,
    docker: dict[str, Any] | None = None,
) -> CompiledStep:
    """A step that says this itself, in code."""
    own = SettingsLayer(settings or {}, resources or {})
    return CompiledStep(PlannedStep(name, upstream), {Origin.CODE_STEP: own}, docker)


def plan(
    *steps: CompiledStep,
    target: Target = "modal",
    root: Path = Path("/nowhere"),
    pipeline: str = "training",
    settings: dict[str, Any] | None = None,
    resources: dict[str, Any] | None = None,
    docker: dict[str, Any] | None = None,
) -> Plan:
    written = {Origin.CODE_PIPELINE: SettingsLayer(settings or {}, resources or {})}
    return make_plan(
        Deployment(pipeline=pipeline, steps=steps, layers=written, docker=docker or {}),
        target=target,
        source_root=root,
        python_version="3.11",
        engine_packages=("zenml==0.98.0",),
    )


def image(made: Plan, sandbox: SandboxSpec | None = None) -> ImageRecipe:
    return made.images[(sandbox or made.run_sandbox).image]


# The app.


@given(text=st.text(min_size=1, max_size=200))
def test_any_app_name_fits_modal(text: str) -> None:
    from modal._utils.name_utils import is_valid_object_name

    assert is_valid_object_name(app_name(text))


def test_app_name() -> None:
    assert app_name("training") == "zenml-pipeline-training"
    assert plan(pipeline="training").settings.app_name == "zenml-pipeline-training"
    assert re.fullmatch(r"zenml-pipeline-my-pipeline-[0-9a-f]{8}", app_name("my pipeline"))


def test_app_name_of_the_settings_wins() -> None:
    assert plan(settings={"app_name": "mine"}).settings.app_name == "mine"


# The run sandbox.


def test_defaults() -> None:
    made = plan(view("load"))
    assert made.target == "modal"
    assert made.settings.modal_environment is None
    assert made.pipeline == "training"
    assert made.notes == ()
    sandbox = made.run_sandbox
    assert sandbox.command == (
        "python3",
        "-m",
        "modalrun.driver.supervisor",
        "modalrun.driver.pipeline",
    )
    assert sandbox.timeout == 21_600
    assert sandbox.regions == ()
    assert sandbox.cloud is None
    assert sandbox.name is None
    assert sandbox.env == {
        "MODALRUN_TIMEOUT": "21600",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": "/opt/modalrun/modalrun.zip",
    }
    assert sandbox.tags == {"modalrun-role": "run", "modalrun-pipeline": "training"}
    assert [group.lines for group in image(made).packages] == [("zenml==0.98.0",)]


def test_the_variables_are_those_that_the_driver_reads() -> None:
    from modalrun.run import contract

    sandbox = plan(settings={"timeout": 60}).sandbox_of_run(RUN_ID)
    assert sandbox.env[contract.TIMEOUT] == "60"
    assert sandbox.env[contract.RUN_ID] == RUN_ID


def test_settings_arrive(tmp_path: Path) -> None:
    made = plan(
        target="local",
        root=tmp_path,
        settings={
            "timeout": 60,
            "cloud": "aws",
            "region": ["us-east", "eu"],
            "modal_environment": "staging",
            "gpu": "A100",
        },
        resources={"gpu_count": 2, "cpu_count": 4, "memory": "8GiB"},
        docker={"apt_packages": ["git"]},
    )
    assert made.target == "local"
    assert made.settings.modal_environment == "staging"
    sandbox = made.run_sandbox
    assert sandbox.timeout == 60
    assert sandbox.cloud == "aws"
    assert sandbox.regions == ("us-east", "eu")
    assert sandbox.resources == Resources(("A100:2",), 4, 8192)
    assert image(made).apt_packages == ("git",)
    assert any("not built" in note for note in made.notes)


def test_one_region() -> None:
    assert plan(settings={"region": "us-east"}).run_sandbox.regions == ("us-east",)


def test_the_run_sandbox_of_a_run() -> None:
    made = plan(pipeline="my pipeline")
    sandbox = made.sandbox_of_run(RUN_ID)
    assert sandbox.name == f"modalrun-{RUN_ID}"
    assert sandbox.tags["modalrun-run"] == RUN_ID
    assert sandbox.tags["modalrun-role"] == "run"
    assert sandbox.tags["modalrun-pipeline"] == fit("my pipeline", MAX_TAG)
    assert sandbox == made.sandbox_of_run(RUN_ID), "the same run gives the same sandbox"
    assert made.run_sandbox.name is None


def test_names_and_tags_of_a_run_pass_the_sdk_checks() -> None:
    from modal._utils.name_utils import check_object_name, check_tag_dict

    sandbox = plan(pipeline="ein sehr langer Name " * 9).sandbox_of_run(RUN_ID)
    check_object_name(str(sandbox.name), "Sandbox")
    check_tag_dict(dict(sandbox.tags))


# Steps.


def test_resources_of_the_steps_are_joined() -> None:
    made = plan(
        view("load", resources={"cpu_count": 8}),
        view("train", ("load",), {"gpu": "A100"}, {"memory": "16GiB", "gpu_count": 2}),
    )
    assert made.run_sandbox.resources == Resources(("A100:2",), 8, 16384)
    text = "\n".join(made.notes)
    assert "cpu_count 8 is the highest of steps: load" in text
    assert "memory 16GiB is the highest of steps: train" in text


def test_step_settings_without_effect_are_noted() -> None:
    made = plan(view("a", settings={"timeout": 60, "region": "eu", "gpu": "T4"}))
    assert len(made.notes) == 1
    assert made.notes[0].startswith("step 'a': region, timeout: no effect")
    assert made.run_sandbox.timeout == 21_600
    assert made.run_sandbox.resources.gpu == "T4"


def test_gpu_of_a_step_without_effect_is_noted() -> None:
    made = plan(view("a", settings={"gpu": "A100"}), settings={"gpu": "T4"})
    assert made.run_sandbox.resources.gpu == "T4"
    assert any("step 'a'" in note and "gpu" in note for note in made.notes)


def test_docker_settings_of_a_step_are_refused() -> None:
    with pytest.raises(UsageError, match="step 'a' has Docker settings of its own") as caught:
        plan(view("a", docker={"requirements": ["torch"]}))
    assert "mode: per_step" in str(caught.value.hint)
    assert "to the pipeline" in str(caught.value.hint)


def test_docker_settings_of_a_step_that_are_the_pipelines() -> None:
    same = {"requirements": ["torch"]}
    plan(view("a", docker=same), docker=same)


def test_each_step_has_its_own_image_in_per_step_mode() -> None:
    made = plan(
        view("a", docker={"apt_packages": ["git"]}), view("b"), settings={"mode": "per_step"}
    )
    images = [image(made, step.sandbox).apt_packages for step in made.steps]
    assert images == [("git",), ()]


def test_the_mistakes_of_all_steps_are_told_at_once() -> None:
    steps = [
        view(name, settings={"gpu": gpu, "gpu_count": 99})
        for name, gpu in (("a", "T4"), ("b", "L4"))
    ]
    with pytest.raises(UsageError) as caught:
        plan(*steps, settings={"mode": "per_step"})
    assert "T4" in caught.value.message and "L4" in caught.value.message


def test_unknown_docker_settings_are_refused_on_modal() -> None:
    with pytest.raises(UsageError, match="of_a_later_zenml"):
        plan(docker={"of_a_later_zenml": "x"})
    assert plan(docker={"of_a_later_zenml": "x"}, target="local").notes


def test_image_of_the_settings() -> None:
    made = plan(settings={"image": {"name": "mine"}})
    assert str(image(made).base) == "Modal image mine"


def test_gpu_count_without_a_type_names_the_step() -> None:
    with pytest.raises(UsageError, match=r"2 GPUs .*highest of steps: a") as caught:
        plan(view("a", resources={"gpu_count": 2}))
    assert "local Modal server" not in str(caught.value.hint)


def test_gpu_count_without_a_type_is_refused_on_the_local_server_too() -> None:
    # What runs there has to run on Modal, which can't be asked for a GPU of no type.
    with pytest.raises(UsageError, match=r"2 GPUs ") as caught:
        plan(view("a", resources={"gpu_count": 2}), target="local")
    assert "The local Modal server needs no GPU: it records the type." in str(caught.value.hint)
