"""What an image gets beside its Docker settings: the Modal SDK of a driver, and git."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modalrun.plan.docker_settings import Driver
from modalrun.plan.image_recipe import (
    BuiltByZenML,
    FromRegistry,
    ImageRecipe,
    Named,
    Packages,
)
from tests.unit.plan.test_docker_settings import PLAIN, gathered, recipe

# The image of a driver.


FINISHED = [
    ({"skip_build": True, "parent_image": "me/image:1"}, None, FromRegistry("me/image:1")),
    ({}, {"name": "mine:v1"}, Named("mine:v1")),
    ({}, {"source": "registry"}, BuiltByZenML()),
]


@pytest.mark.parametrize(("docker", "image", "base"), FINISHED)
def test_a_static_driver_has_an_image_of_its_own(
    docker: dict[str, Any], image: dict[str, Any] | None, base: Any
) -> None:
    assert recipe(docker, image=image)[0].base == base
    assert recipe(docker, image=image, driver="static")[0] == PLAIN


def test_a_static_driver_has_the_engine_alone_and_the_way_to_it() -> None:
    docker = {
        "parent_image": "pytorch/pytorch:2.4",
        "apt_packages": ["libgl1"],
        "environment": {"https_proxy": "http://proxy:1"},
        "python_package_installer_args": {"index-url": "https://host/simple"},
        "local_project_install_command": "pip install .",
        "prevent_build_reuse": True,
        **gathered(("requirements", ["torch"]), apt=("git",)),
    }
    made, _ = recipe(docker, driver="static")
    assert made == replace(
        PLAIN,
        environment=(("HTTPS_PROXY", "http://proxy:1"),),
        installer_args=("--index-url=https://host/simple",),
    )


@pytest.mark.parametrize(("docker", "image", "base"), FINISHED)
def test_a_dynamic_driver_gets_modal_into_a_finished_image(
    docker: dict[str, Any], image: dict[str, Any] | None, base: Any
) -> None:
    made, notes = recipe(docker, image=image, driver="dynamic")
    layer = Packages("modalrun's engine", ("modal==1.6.4",))
    assert made == ImageRecipe(base, packages=(layer,))
    (note,) = notes
    assert note.startswith(f"modal==1.6.4 is added to the image {base}: ")


def test_a_dynamic_driver_has_the_image_of_the_docker_settings() -> None:
    docker = {"apt_packages": ["libgl1"], **gathered(("requirements", ["torch"]))}
    assert recipe(docker, driver="dynamic") == recipe(docker)


# Requirements from Git.


GIT_LINES = [
    "git+https://host/x",
    "x @ git+https://host/x@main",
    "-e git+https://host/x#egg=x",
    "--editable=git+ssh://git@host/x#egg=x",
    "x[y]@GIT+https://host/x ; python_version > '3'",
]


@pytest.mark.parametrize("line", GIT_LINES)
def test_git_is_installed_for_requirements_from_git(line: str) -> None:
    made, notes = recipe(gathered(("requirements", ["numpy", line])))
    assert made.apt_packages == ("git",)
    assert notes == ["git is added to the image: requirements installs from Git"]
    # Where apt is known to work.
    with_apt = {"parent_image": "me/image", "apt_packages": ["libgl1"]}
    made, _ = recipe({**with_apt, **gathered(("requirements", [line]))})
    assert made.apt_packages == ("libgl1", "git")


@pytest.mark.parametrize("line", ["gitpython", "x @ https://host/git+x.whl", "hg+https://host/x"])
def test_other_requirements_need_no_git(line: str) -> None:
    assert recipe(gathered(("requirements", [line])))[0].apt_packages == ()


@pytest.mark.parametrize("git", ["git", "git=1:2.39.5-0+deb12u2"])
def test_git_that_is_named_is_not_added_again(git: str) -> None:
    made, notes = recipe({"apt_packages": [git], **gathered(("requirements", GIT_LINES))})
    assert (made.apt_packages, notes) == ((git,), [])


def test_an_image_where_apt_may_not_work_is_left_as_it_is() -> None:
    docker = {"parent_image": "me/alpine", **gathered(("requirements", GIT_LINES))}
    made, notes = recipe(docker)
    assert made.apt_packages == ()
    (note,) = notes
    assert "requirements installs from Git, and git is not added to me/alpine" in note
    assert "apt_packages" in note


@pytest.mark.parametrize("driver", [None, "static", "dynamic"])
def test_git_for_an_engine_from_git(driver: Driver | None) -> None:
    engine = ("zenml @ git+https://github.com/zenml-io/zenml@abc", "modal==1.6.4")
    made, notes = recipe({}, engine=engine, driver=driver)
    assert made.apt_packages == ("git",)
    assert notes == ["git is added to the image: modalrun's engine installs from Git"]


@pytest.mark.parametrize(
    ("command", "project"),
    [
        ("pip install git+https://host/x", None),
        ("pip install .", '[project]\ndependencies = ["x @ git+https://host/x"]'),
        ("uv pip install .", '[tool.uv.sources]\nx = { git = "https://host/x" }'),
    ],
)
def test_git_for_a_project_that_needs_it(tmp_path: Path, command: str, project: str | None) -> None:
    if project is not None:
        (tmp_path / "pyproject.toml").write_text(project)
    made, _ = recipe({"local_project_install_command": command}, tmp_path)
    assert made.apt_packages == ("git",)
    (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = ['gitpython']")
    made, _ = recipe({"local_project_install_command": "pip install ."}, tmp_path)
    assert made.apt_packages == ()
