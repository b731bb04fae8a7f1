"""Gather the packages of Docker settings with ZenML's own code."""

from pathlib import Path
from typing import Any, cast

import pytest
from zenml.config import DockerSettings
from zenml.stack import Stack
from zenml.utils import source_utils

from modalrun.errors import UsageError
from modalrun.plan.deployment import CompiledStep, Deployment
from modalrun.plan.image_layers import GATHERED
from modalrun.run.run_plan import PlannedStep
from modalrun.zenml_api.compiling.image_builds import _is_in
from modalrun.zenml_api.compiling.requirements import gather as gather_packages
from modalrun.zenml_api.compiling.requirements import with_packages


class _Stack:
    """A stack with an S3 artifact store, as far as images are concerned."""

    apt_packages = ("libfuse",)

    def requirements(self) -> set[str]:
        return {"s3fs", "boto3"}


STACK = cast(Stack, _Stack())


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(source_utils, "_CUSTOM_SOURCE_ROOT", str(tmp_path))
    return tmp_path


def gather(root: Path, *, run_commands: bool = True, **settings: Any) -> dict[str, Any]:
    return gather_packages(DockerSettings(**settings), STACK, root, run_commands=run_commands)


def test_nothing_but_the_stack(root: Path) -> None:
    assert gather(root) == {
        "packages": [{"origin": "the stack", "lines": ["boto3", "s3fs"]}],
        "apt": ["libfuse"],
    }
    assert gather(root, install_stack_requirements=False) == {"packages": [], "apt": []}


def test_everything_in_zenmls_order(root: Path) -> None:
    (root / "requirements.txt").write_text("-r more.txt\nnumpy  # x\n")
    (root / "more.txt").write_text("torch\n")
    (root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    found = gather(
        root,
        replicate_local_python_environment=["echo", "local==1"],
        required_integrations=["sklearn", "deepchecks"],
        pyproject_path="pyproject.toml",
        pyproject_export_command=["echo", "exported==2", "#", "{directory}"],
        requirements="requirements.txt",
    )
    assert [group["origin"] for group in found["packages"]] == [
        "replicate_local_python_environment",
        "the stack",
        "required_integrations",
        "pyproject",
        "requirements",
    ]
    lines = {group["origin"]: group["lines"] for group in found["packages"]}
    assert lines["replicate_local_python_environment"] == ["local==1"]
    assert any(line.startswith("scikit-learn") for line in lines["required_integrations"])
    assert lines["pyproject"] == ["exported==2"]
    assert lines["requirements"] == ["torch", "numpy"]
    assert "libfuse" in found["apt"]


def test_detection(root: Path) -> None:
    (root / "requirements.txt").write_text("numpy\n")
    assert len(gather(root)["packages"]) == 1
    found = gather(root, disable_automatic_requirements_detection=False)
    assert found["packages"][1] == {"origin": "requirements", "lines": ["numpy"]}


def test_no_command_is_run_where_nothing_is_built(root: Path) -> None:
    mark = root / "mark"
    found = gather(
        root,
        run_commands=False,
        replicate_local_python_environment=["touch", str(mark)],
        pyproject_path="absent.toml",
        pyproject_export_command=["touch", str(mark)],
        requirements=["numpy"],
    )
    assert not mark.exists()
    assert [group["origin"] for group in found["packages"]] == ["the stack", "requirements"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"required_integrations": ["sklaern"]}, "'sklaern'"),
        ({"requirements": "absent.txt"}, "absent.txt"),
        ({"pyproject_path": "absent.toml"}, "absent.toml"),
        ({"replicate_local_python_environment": ["false"]}, "Unable to export"),
        ({"pyproject_path": ".", "pyproject_export_command": ["false"]}, "Failed to export"),
    ],
)
def test_wrong_settings(root: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        gather(root, **settings)
    assert message in caught.value.message
    if "required_integrations" in settings:
        assert "sklearn" in str(caught.value.hint)


def test_a_finished_image_needs_nothing(root: Path) -> None:
    finished = {"skip_build": True, "parent_image": "x", "requirements": "absent.txt"}
    steps = (CompiledStep(PlannedStep("a"), docker=finished), CompiledStep(PlannedStep("b")))
    deployment = Deployment("p", steps, docker={"user": "x"})
    found = with_packages(deployment, STACK, root, built=True)
    assert found.steps == steps
    assert found.docker == {"user": "x", GATHERED: gather(root)}


@pytest.mark.parametrize(
    ("image", "uri", "inside"),
    [
        ("registry.example/me/zenml@sha256:a", "registry.example/me", True),
        ("registry.example/me/zenml:1", "https://registry.example/me/", True),
        ("registry.example/mean/zenml:1", "registry.example/me", False),
        ("me/zenml:1", "docker.io/me", True),
        ("docker.io/me/zenml:1", "index.docker.io/me", True),
        ("python:3.11", "docker.io/me", False),
    ],
)
def test_an_image_of_the_registry_needs_its_credentials(image: str, uri: str, inside: bool) -> None:
    assert _is_in(image, uri) is inside
