"""Docker settings become image recipes: every field is translated, noted or refused by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zenml.config import DockerSettings

from modalrun.errors import UsageError
from modalrun.plan import docker_settings as image_module
from modalrun.plan.docker_settings import Driver, dockerignore, image_recipe
from modalrun.plan.image_layers import GATHERED
from modalrun.plan.image_recipe import (
    BuiltByZenML,
    FromDockerfile,
    FromRegistry,
    ImageRecipe,
    Named,
    Packages,
    Slim,
)

ENGINE = ("zenml==0.98.0", "modal==1.6.4")
ENGINE_LAYER = Packages("modalrun's engine", ENGINE)
PLAIN = ImageRecipe(Slim("3.11"), packages=(ENGINE_LAYER,))


def recipe(
    docker: dict[str, Any],
    root: Path = Path("/nowhere"),
    *,
    local: bool = False,
    image: dict[str, Any] | None = None,
    driver: Driver | None = None,
    engine: tuple[str, ...] = ENGINE,
    gpu: bool = False,
) -> tuple[ImageRecipe, list[str]]:
    return image_recipe(
        docker,
        python_version="3.11",
        engine_packages=engine,
        source_root=root,
        local=local,
        image=image,
        driver=driver,
        gpu=gpu,
    )


def gathered(*groups: tuple[str, list[str]], apt: tuple[str, ...] = ()) -> dict[str, Any]:
    packages = [{"origin": origin, "lines": lines} for origin, lines in groups]
    return {GATHERED: {"packages": packages, "apt": list(apt)}}


def refused(docker: dict[str, Any], root: Path = Path("/nowhere")) -> str:
    with pytest.raises(UsageError) as caught:
        recipe(docker, root)
    return caught.value.message


# Translated settings.


def test_nothing_set() -> None:
    assert recipe({}) == (PLAIN, [])
    assert recipe({}, local=True) == (PLAIN, [])


def test_everything_together() -> None:
    docker = {
        "parent_image": "pytorch/pytorch:2.4",
        "apt_packages": ["git", "libgl1"],
        "environment": {"b": 2, "A": "one"},
        "runtime_environment": {"LATE": "x"},
        "python_package_installer": "pip",
        "python_package_installer_args": {"index-url": "https://host/simple", "pre": None},
        "local_project_install_command": "pip install --no-deps .",
        "user": "zenml:zenml",
        "prevent_build_reuse": True,
        **gathered(("the stack", ["s3fs"]), ("requirements", ["torch==2.4"]), apt=("curl", "git")),
    }
    made, notes = recipe(docker)
    assert made == ImageRecipe(
        base=FromRegistry("pytorch/pytorch:2.4"),
        environment=(("A", "one"), ("B", "2")),
        apt_packages=("git", "libgl1", "curl"),
        packages=(
            ENGINE_LAYER,
            Packages("the stack", ("s3fs",), ENGINE),
            Packages("requirements", ("torch==2.4",), ENGINE),
        ),
        installer="pip",
        installer_args=("--index-url=https://host/simple", "--pre"),
        project_install="pip install --no-deps .",
        runtime_environment=(("LATE", "x"),),
        force_build=True,
    )
    (note,) = notes
    assert note == (
        "the Docker setting user has no effect: Modal ignores the user of an image, and runs"
        " sandboxes as root"
    )


@given(st.permutations(["environment", "apt_packages", "requirements"]))
def test_the_order_of_settings_does_not_change_the_recipe(order: list[str]) -> None:
    docker = {
        "environment": {"B": "2", "A": "1"},
        "apt_packages": ["x"],
        "requirements": ["y"],
    }
    turned = {key: docker[key] for key in order}
    turned["environment"] = {"A": "1", "B": "2"}
    assert recipe(docker) == recipe(turned)
    assert hash(recipe(docker)[0]) == hash(recipe(turned)[0])


def test_requirements_without_gathering(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("scikit-learn\n", encoding="utf-8")
    (tmp_path / "requirements.txt").write_text(
        "# what we need\n\nnumpy>=1.26  # arrays\n-r more.txt\n", encoding="utf-8"
    )
    made, _ = recipe({"requirements": "requirements.txt"}, tmp_path)
    origin = "requirements in requirements.txt"
    assert made.packages[1] == Packages(origin, ("numpy>=1.26", "scikit-learn"), ENGINE)
    assert recipe({"requirements": ["a", "b"]})[0].packages[1].lines == ("a", "b")


def test_hashes_and_pins_do_not_go_together() -> None:
    lines = ["numpy==2.0 --hash=sha256:abc"]
    made, _ = recipe(gathered(("requirements", lines)))
    assert made.packages[1] == Packages("requirements", tuple(lines), ())


@pytest.mark.parametrize("line", ["modalrun", "modalrun==0.1", "-e git+https://h/m#egg=modalrun"])
def test_modalrun_is_mounted_not_installed(line: str) -> None:
    assert recipe(gathered(("requirements", [line])))[0] == PLAIN


def test_a_gpu_is_measured_with_a_layer_above_those_of_other_steps() -> None:
    docker = {"requirements": ["numpy"]}
    (plain, _), (made, _) = recipe(docker), recipe(docker, gpu=True)
    assert made.packages[:-1] == plain.packages
    assert made.packages[-1].lines == ("nvidia-ml-py",)
    finished, _ = recipe({"skip_build": True, "parent_image": "registry/me/image:1"}, gpu=True)
    assert finished.packages == ()


def test_no_cache_builds_anew() -> None:
    made, _ = recipe({"build_config": {"build_options": {"no_cache": True}}})
    assert made == replace(PLAIN, force_build=True)


# A Dockerfile.


def test_dockerfile(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "ARG VERSION\nFROM python:$VERSION AS build\nCOPY lib \\\n  /lib\n"
        "FROM python\nCOPY --from=build /lib /lib\nADD https://host/x /x\n"
    )
    (tmp_path / "context").mkdir()
    options = {"build_args": {"VERSION": 3.11}, "no_cache": True, "platform": "linux/amd64"}
    docker = {
        "dockerfile": "Dockerfile",
        "build_context_root": "context",
        "parent_image_build_config": {"build_options": options, "dockerignore": "ignored"},
        "parent_image": "ignored",
    }
    made, notes = recipe(docker, tmp_path)
    assert made.base == FromDockerfile(
        tmp_path / "Dockerfile",
        tmp_path / "context",
        tmp_path / "ignored",
        (("VERSION", "3.11"),),
    )
    assert made.force_build
    assert notes == ["the Docker setting parent_image has no effect: 'dockerfile' has its own FROM"]


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("COPY a /a", {}, "'COPY a /a', but 'build_context_root' is not set"),
        ("FROM x", {"shm_size": 5}, "'parent_image_build_config.build_options.shm_size'"),
        ("FROM x", {"target": "prod"}, "build_options.target"),
        ("FROM x", {"platform": "linux/arm64"}, "build_options.platform"),
        ("FROM x", {"secret": "id=x"}, "build_options.secret"),
    ],
)
def test_dockerfile_that_modal_cannot_build(
    tmp_path: Path, text: str, options: dict[str, Any], said: str
) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    docker = {
        "dockerfile": "Dockerfile",
        "parent_image_build_config": {"build_options": options},
    }
    assert said in refused(docker, tmp_path)


@pytest.mark.parametrize("line", ["ADD src /src", "COPY $SRC /src", "COPY ${A}/b /src"])
def test_copies_that_modal_cannot_do(tmp_path: Path, line: str) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM x\n{line}\n")
    docker = {"dockerfile": "Dockerfile", "build_context_root": "."}
    assert f"'{line}'" in refused(docker, tmp_path)


def test_dockerfile_missing(tmp_path: Path) -> None:
    assert "No such file" in refused({"dockerfile": "absent"}, tmp_path)


# Finished images.


def test_skip_build() -> None:
    docker = {"skip_build": True, "parent_image": "registry/me/image:1", "requirements": ["numpy"]}
    made, notes = recipe(docker)
    assert made == ImageRecipe(FromRegistry("registry/me/image:1"))
    assert notes == [
        "the Docker settings requirements have no effect: 'skip_build' uses registry/me/image:1"
        " as it is"
    ]
    assert "parent_image" in refused({"skip_build": True})


@pytest.mark.parametrize("name", ["mine", "mine:v2", "production/mine:v2", "im-123"])
def test_named_image(name: str) -> None:
    made, notes = recipe({"requirements": ["numpy"]}, image={"name": name})
    assert made == ImageRecipe(Named(name))
    assert made.base.is_id == (name == "im-123")
    assert "requirements" in notes[0]


def test_image_that_zenml_builds() -> None:
    assert recipe({}, image={"source": "registry"}) == (ImageRecipe(BuiltByZenML()), [])
    docker = {"skip_build": True, "parent_image": "registry/me/image:1"}
    made, _ = recipe(docker, image={"source": "registry"})
    assert made == ImageRecipe(FromRegistry("registry/me/image:1"))
    made, notes = recipe({}, image={"source": "registry"}, local=True)
    assert made == ImageRecipe(Slim("3.11"))
    assert "no effect locally" in notes[0]


# Refused settings.


@pytest.mark.parametrize(
    ("docker", "said"),
    [
        ({"build_options": {"a": 1}}, "'build_options': ZenML has dropped it"),
        ({"of_a_later_zenml": 1}, "'of_a_later_zenml'"),
        ({"build_config": {"build_options": {"build_args": {"A": "s3cret"}}}}, "build_args' (A)"),
        ({"build_config": {"build_options": {"shmsize": 1}}}, "build_config.build_options.shmsize"),
        ({"python_package_installer_cache_mount": "type=bind,target=/x"}, "cache_mount"),
        ({"environment": {"not a name": "x"}}, "'NOT A NAME'"),
        ({"runtime_environment": {"A": "1\n2"}}, "the value of A has several lines"),
        ({"apt_packages": ["git; rm"]}, "'git; rm'"),
        ({"required_integrations": ["sklearn"]}, "compile the pipeline again"),
        (gathered(("requirements", ["./wheel.whl"])), "'./wheel.whl' installs from a folder"),
        (gathered(("requirements", ["-e ."])), "'-e .'"),
        (gathered(("requirements", ["x @ file:///x"])), "'x @ file:///x'"),
        (gathered(("requirements", ["ZenML<0.98"])), "'ZenML<0.98' excludes zenml==0.98.0"),
        (gathered(("pyproject", ["modal==1.0 ; python_version>'3'"])), "excludes modal==1.6.4"),
    ],
)
def test_refused(docker: dict[str, Any], said: str) -> None:
    message = refused(docker)
    assert said in message
    assert "s3cret" not in message
    made, notes = recipe(docker, local=True)
    assert made
    assert any(said in note for note in notes), "locally nothing is built, so it is only noted"


def test_all_problems_in_one_message() -> None:
    message = refused(
        {"build_options": {"a": 1}, "environment": {"A B": "c"}, "apt_packages": ["A B"]}
    )
    assert message.count("\n  - ") == 3


def test_the_stack_gives_way_to_the_engine() -> None:
    made, notes = recipe(gathered(("the stack", ["modal<1", "s3fs"])))
    assert made.packages[1].lines == ("s3fs",)
    assert notes == ["the stack: 'modal<1' is left out, modal==1.6.4 runs modalrun"]


# Settings without effect.


@pytest.mark.parametrize(
    "docker",
    [
        {"image_tag": "x"},
        {"target_repository": "x"},
        {"copy_files": False},
        {"allow_download_from_artifact_store": False},
        {"build_context_root": "x"},
        {"parent_image_build_config": {"build_options": {"build_args": {"A": 1}}}},
        {"python_package_installer_cache_mount": "type=cache,target=/root/.cache/uv"},
        {"build_config": {"build_options": {"pull": True}}},
        {"build_config": {"build_options": {"labels": {"a": "b"}}}},
    ],
)
def test_settings_without_effect_are_noted(docker: dict[str, Any]) -> None:
    made, notes = recipe(docker)
    assert made == PLAIN
    assert len(notes) == 1
    assert "no effect" in notes[0]


@pytest.mark.parametrize("name", sorted(DockerSettings.model_fields))
def test_every_field_of_the_installed_zenml_is_known(name: str) -> None:
    known = (
        image_module._TRANSLATED
        | image_module._ON_BY_DEFAULT
        | set(image_module._NO_EFFECT)
        | set(image_module._REFUSED)
    )
    assert name in known


def test_defaults_written_out_do_no_harm() -> None:
    docker = DockerSettings().model_dump(mode="json")
    assert recipe(docker) == recipe({})


# Output.


def test_the_repr_of_a_recipe_shows_no_secret() -> None:
    docker = {
        "apt_packages": ["git"],
        "environment": {"KEY": "s3cret"},
        "python_package_installer_args": {"index-url": "https://u:s3cret@h/"},
        "local_project_install_command": "pip install .",
        **gathered(("requirements", ["--extra-index-url https://u:s3cret@h/", "numpy"])),
    }
    made, _ = recipe(docker)
    assert str(made.base) == "debian slim, Python 3.11"
    assert "s3cret" not in repr(made)


def test_dockerignore_of_the_source_tree() -> None:
    assert dockerignore({}) is None
    assert dockerignore({"dockerignore": "old"}) == "old"
    assert dockerignore({"build_config": {"dockerignore": "new"}, "dockerignore": "old"}) == "new"


def test_lines_of_a_dockerfile_that_the_local_server_does_not_execute(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM python:3.11\n# RUN true\nRUN pip install pytest\nRUN pip install no-such-package\n"
        "RUN apt-get update && \\\n    make \\\n    tools\n"
    )
    docker = {"dockerfile": "Dockerfile"}

    _, (first, *notes) = recipe(docker, tmp_path, local=True)

    assert first.startswith("Docker settings are recorded, not built")
    line = "the local Modal server does not execute a line of Dockerfile"
    assert notes == [
        f"{line} (unless it was started with --isolated-python): RUN pip install no-such-package",
        f"{line}: RUN apt-get update && make tools",
    ]
    assert recipe(docker, tmp_path)[1] == [], "Modal executes them"
