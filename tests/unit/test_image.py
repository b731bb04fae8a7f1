"""DockerSettings -> image recipe."""

from pathlib import Path
from typing import Any

import pytest

from modalrun.errors import UsageError
from modalrun.image import ImageRecipe, image_recipe

ENGINE = ("zenml==0.98.0", "modal==1.6.4")


def recipe(
    docker: dict[str, Any], root: Path, *, local: bool = False
) -> tuple[ImageRecipe, list[str]]:
    return image_recipe(
        docker, python_version="3.11", engine_packages=ENGINE, source_root=root, local=local
    )


def test_nothing_set(tmp_path: Path) -> None:
    made, notes = recipe({}, tmp_path)
    assert made == ImageRecipe("3.11", python_packages=ENGINE)
    assert notes == []


def test_everything_understood(tmp_path: Path) -> None:
    made, notes = recipe(
        {
            "parent_image": "nvidia/cuda:12",
            "apt_packages": ["git", "curl"],
            "requirements": ["torch==2.4", "numpy"],
            "environment": {"B": 2, "A": "one"},
        },
        tmp_path,
    )
    assert made == ImageRecipe(
        python_version="3.11",
        parent_image="nvidia/cuda:12",
        apt_packages=("git", "curl"),
        python_packages=(*ENGINE, "torch==2.4", "numpy"),
        environment=(("A", "one"), ("B", "2")),
    )
    assert notes == []


def test_the_order_of_settings_does_not_change_the_recipe(tmp_path: Path) -> None:
    docker = {"environment": {"B": "2", "A": "1"}, "apt_packages": ["x"], "requirements": ["y"]}
    turned = {key: docker[key] for key in reversed(docker)}
    turned["environment"] = {"A": "1", "B": "2"}
    assert recipe(docker, tmp_path) == recipe(turned, tmp_path)
    assert hash(recipe(docker, tmp_path)[0]) == hash(recipe(turned, tmp_path)[0])


def test_requirements_file(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "# what we need\n\nnumpy>=1.26  # arrays\n  scikit-learn\n"
        "zenml @ https://host/x.whl#egg=zenml\n",
        encoding="utf-8",
    )
    made, _ = recipe({"requirements": "requirements.txt"}, tmp_path)
    assert made.python_packages == (
        *ENGINE,
        "numpy>=1.26",
        "scikit-learn",
        "zenml @ https://host/x.whl#egg=zenml",
    )


def test_requirements_file_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        recipe({"requirements": "absent.txt"}, tmp_path)
    assert str(tmp_path / "absent.txt") in caught.value.message
    assert "No such file" in caught.value.message


def test_requirements_file_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Is a directory"):
        recipe({"requirements": "."}, tmp_path)


@pytest.mark.xfail(strict=True, reason="UnicodeDecodeError is not an OSError and not caught")
def test_requirements_file_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(b"numpy\xff\xfe\n")
    with pytest.raises(UsageError):
        recipe({"requirements": "requirements.txt"}, tmp_path)


UNKNOWN = {"dockerfile": "Dockerfile", "build_options": {"a": 1}, "apt_packages": ["git"]}


def test_unknown_settings_are_refused_on_modal(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        recipe(UNKNOWN, tmp_path)
    assert "build_options, dockerfile" in caught.value.message
    assert "apt_packages" not in caught.value.message
    assert "apt_packages" in str(caught.value.hint)


def test_unknown_settings_are_a_note_locally(tmp_path: Path) -> None:
    made, notes = recipe(UNKNOWN, tmp_path, local=True)
    assert made.apt_packages == ("git",)
    assert len(notes) == 1
    assert "not built" in notes[0]


def test_unset_unknown_settings_do_no_harm(tmp_path: Path) -> None:
    assert recipe({"dockerfile": None, "build_options": {}}, tmp_path) == recipe({}, tmp_path)


def test_no_note_where_nothing_was_asked(tmp_path: Path) -> None:
    assert recipe({}, tmp_path, local=True)[1] == []
