"""The plan of a run, with its images before and after they are built."""

import pytest

from modalrun.plan.model import Plan
from modalrun.run.run_plan import PlannedStep, RunPlan, RunSettings
from modalrun.run.sandbox_spec import Resources, SandboxSpec


def sandbox(image: str) -> SandboxSpec:
    return SandboxSpec(("python",), image, Resources(), 60)


def plan() -> Plan:
    return Plan(
        "modal",
        "training",
        RunSettings(app_name="a", mode="per_step"),
        sandbox("image-0"),
        (
            PlannedStep("load", sandbox=sandbox("image-0")),
            PlannedStep("train", ("load",), retries=2, sandbox=sandbox("image-1")),
            PlannedStep("inline"),
        ),
        notes=("a note",),
    )


def test_sandboxes() -> None:
    assert [one.image for one in plan().sandboxes] == ["image-0", "image-0", "image-1"]


def test_built_images_replace_their_recipes() -> None:
    built = plan().with_images({"image-0": "im-1", "image-1": "im-2"})
    assert type(built) is RunPlan, "only what is created: the manifest holds no explanations"
    assert built.run_sandbox == sandbox("im-1")
    assert built.steps == (
        PlannedStep("load", sandbox=sandbox("im-1")),
        PlannedStep("train", ("load",), retries=2, sandbox=sandbox("im-2")),
        PlannedStep("inline"),
    )
    assert (built.target, built.pipeline, built.settings) == (
        "modal",
        "training",
        plan().settings,
    )


def test_an_image_that_was_not_built() -> None:
    with pytest.raises(KeyError):
        plan().with_images({"image-0": "im-1"})
