"""Whoever made a deployment does not choose what is uploaded from this machine."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modalrun.errors import UsageError
from modalrun.modal_api.images import _stays_behind
from modalrun.plan import deployment_file
from modalrun.plan.deployment import read_snapshot
from modalrun.plan.deployment_file import DeploymentFile
from modalrun.plan.image_recipe import FromDockerfile
from modalrun.plan.stack import Component, StackDescription
from modalrun.spec.overrides import Override
from modalrun.spec.run_spec import load_spec
from modalrun.submit.prepare import PricedPlan, plan_spec, with_file_values
from modalrun.submit.source.selection import select


def snapshot(
    docker: dict[str, Any], orchestrator: dict[str, Any], module: str = "training"
) -> dict[str, Any]:
    settings = {"docker": docker, "orchestrator": orchestrator}
    return {
        "pipeline_configuration": {
            "name": "p",
            "execution_mode": "stop_on_failure",
            "settings": settings,
        },
        "step_configurations": {
            "s": {
                "spec": {
                    "upstream_steps": [],
                    "source": {"module": module, "attribute": "s", "type": "user"},
                },
                "config": {"settings": {"docker": docker}},
                "step_config_overrides": {"settings": {}},
            }
        },
    }


class Bench:
    """A downloaded deployment file, beside private files of the user's."""

    def __init__(self, folder: Path):
        self.home = folder
        self.folder = folder / "downloads" / "deployment"
        self.file = self.folder / "deployment.json"
        (self.folder / "code").mkdir(parents=True)
        (self.folder / "code" / "training.py").write_text("x")
        (self.folder / "code" / ".env").write_text("x")
        (folder / "private").mkdir()
        (folder / "private" / "diary").write_text("secret")
        (folder / "private" / "training.py").write_text("x")
        (self.folder / "link").symlink_to("../../private")
        self.write()

    def write(
        self,
        source_root: str = "code",
        docker: dict[str, Any] | None = None,
        module: str = "training",
        **orchestrator: Any,
    ) -> None:
        made = snapshot(docker or {}, orchestrator, module)
        file = DeploymentFile(
            deployment=read_snapshot(made),
            snapshot=made,
            stack=StackDescription("id", "prod", (Component("artifact_store", "s3", "s3"),), ""),
            zenml_version="0.98.0",
            source_root=source_root,
            target="modal",
        )
        # As `compile` writes it.
        file = replace(file, deployment=replace(file.deployment, docker=docker or {}))
        deployment_file.write(self.file, file)

    def plan(self, spec: str | None = None, *overrides: Override) -> PricedPlan:
        path = self.file
        if spec is not None:
            path = self.folder / "run.yaml"
            path.write_text(f"deployment: deployment.json\ntarget: local\n{spec}")
        return plan_spec(load_spec(path, target="local", overrides=overrides))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("HOME", str(tmp_path))
    return Bench(tmp_path)


def test_a_folder_below_the_file_is_taken(bench: Bench) -> None:
    for named, names in (("code", {"training.py"}), ("./code/../code", {"training.py"})):
        bench.write(named)
        tree = select(bench.plan().source)
        assert {str(file.path) for file in tree.files} == names
        assert str(bench.folder / "code") in tree.described()


@pytest.mark.parametrize("named", ["..", "../../private", "/etc", "link", "code/../../..", "~", ""])
def test_another_folder_is_refused(bench: Bench, named: str) -> None:
    absolute = {"": str(bench.folder / "code")}
    bench.write(absolute.get(named, named))
    for attempt in (bench.plan, lambda: with_file_values(load_spec(bench.file))):
        with pytest.raises(UsageError, match="names the source root") as caught:
            attempt()
        assert "--source-root" in str(caught.value.hint)
    with pytest.raises(UsageError, match="names the source root"):
        bench.plan("")


@pytest.mark.parametrize("module", ["wine.flow", "diary", "training.", "x" * 300, "a\0b", ""])
def test_a_folder_without_the_steps_modules_is_refused(bench: Bench, module: str) -> None:
    """A file that was moved does not take along what is beside it now."""
    bench.write("code", module=module, source_include=["absent"])
    for attempt in (bench.plan, lambda: with_file_values(load_spec(bench.file))):
        with pytest.raises(
            UsageError, match=r"compiled from .*, which .*code does not hold"
        ) as why:
            attempt()
        assert "--source-root FOLDER" in str(why.value.hint)


def test_modules_and_packages_of_the_source_root_are_found(bench: Bench) -> None:
    package = bench.folder / "code" / "wine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "flow.py").touch()
    for module in ("wine", "wine.flow"):
        bench.write("code", module=module)
        bench.plan()


def test_a_path_in_a_message_is_normalised(bench: Bench) -> None:
    spec = bench.folder / "run.yaml"
    spec.write_text("deployment: ../deployment/../absent.json\n")
    with pytest.raises(UsageError) as caught:
        plan_spec(load_spec(spec))
    assert str(bench.folder.parent / "absent.json") in caught.value.message


def test_a_file_behind_a_link_is_where_it_really_is(bench: Bench) -> None:
    bench.write("code")
    link = bench.home / "private" / "deployment.json"
    link.symlink_to(bench.file)
    assert plan_spec(load_spec(link, target="local")).source.root == bench.folder / "code"


def test_the_user_may_name_any_folder_but_a_private_one(bench: Bench) -> None:
    bench.write("../../private")
    private = bench.home / "private"
    assert bench.plan(f"source_root: {private}\n").source.root == private
    flag = Override("--source-root", ("source_root",), str(private))
    assert bench.plan(None, flag).source.root == private
    assert bench.plan("source_root: code\n", flag).source.root == private
    with pytest.raises(UsageError, match="home folder"):
        bench.plan(f"source_root: {bench.home}\n")


def test_a_file_in_the_home_folder_does_not_upload_it(bench: Bench) -> None:
    bench.write(".")
    bench.file = bench.file.rename(bench.home / "deployment.json")
    with pytest.raises(UsageError, match="home folder"):
        bench.plan()


def test_a_snapshot_names_no_source_root(bench: Bench) -> None:
    spec = bench.folder / "run.yaml"
    spec.write_text("deployment: a-snapshot\n")
    assert with_file_values(load_spec(spec)).source_root == bench.folder


def test_a_deployment_takes_no_credential_file_along(bench: Bench) -> None:
    bench.write(source_include=[".env"])
    assert [str(file.path) for file in select(bench.plan().source).files] == ["training.py"]
    ours = select(bench.plan("source_include: [.env]\n").source)
    assert [str(file.path) for file in ours.files] == [".env", "training.py"]


@pytest.mark.parametrize(
    "docker",
    [
        {"requirements": "../../../private/diary"},
        {"requirements": "~/private/diary"},
        {"dockerfile": "/etc/passwd"},
        {"dockerfile": "../link/diary"},
        {"dockerfile": "Dockerfile", "build_context_root": "../.."},
        {"dockerignore": "../../../private/diary"},
        {"build_config": {"dockerignore": "/etc/passwd"}},
        {"parent_image_build_config": {"dockerignore": "/etc/passwd"}},
        {"pyproject_path": "../../private/pyproject.toml"},
    ],
    ids=str,
)
def test_docker_settings_name_only_files_below_the_source_root(
    bench: Bench, docker: dict[str, Any]
) -> None:
    (bench.folder / "code" / "Dockerfile").write_text("FROM python\nCOPY . /x\n")
    bench.write(docker=docker)
    with pytest.raises(UsageError, match="not below the source root") as caught:
        bench.plan()
    assert "secret" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize(
    "docker",
    [
        {"pyproject_path": "pyproject.toml", "pyproject_export_command": ["sh", "-c", "id"]},
        {"replicate_local_python_environment": ["sh", "-c", "id"]},
    ],
    ids=str,
)
def test_docker_settings_run_no_command_here(bench: Bench, docker: dict[str, Any]) -> None:
    (bench.folder / "code" / "pyproject.toml").touch()
    bench.write(docker=docker)
    with pytest.raises(UsageError, match="is a command for this machine: sh -c id"):
        bench.plan()


def test_the_user_may_name_a_file_anywhere(bench: Bench) -> None:
    bench.write(docker={"requirements": "../../../private/diary"})
    settings = "settings: {docker: {requirements: [numpy]}}\n"
    assert bench.plan(settings).plan.images


def test_a_private_build_context_is_refused(bench: Bench) -> None:
    (bench.folder / "code" / "Dockerfile").write_text("FROM python\nCOPY . /x\n")
    settings = f"{{dockerfile: Dockerfile, build_context_root: {bench.home}}}"
    with pytest.raises(UsageError, match="build context"):
        bench.plan(f"settings: {{docker: {settings}}}\n")


def test_a_named_pipe_as_a_requirements_file_does_not_hang(bench: Bench) -> None:
    os.mkfifo(bench.folder / "code" / "requirements.txt")
    bench.write(docker={"requirements": "requirements.txt"})
    with pytest.raises(UsageError, match="can't be read: it is no regular file"):
        bench.plan()


def test_a_build_context_takes_no_credentials_along(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nCOPY . /x\nCOPY conf/named.pem /y\n")
    (tmp_path / ".dockerignore").write_text("data\n")
    base = FromDockerfile(tmp_path / "Dockerfile", tmp_path)
    stays = _stays_behind(base, tmp_path)
    names = ("a.py", "data", ".env", ".aws/credentials", "b.pem", "conf/named.pem")
    assert [name for name in names if stays(Path(name))] == ["data", *names[2:5]]


def test_a_changed_file_is_refused(bench: Bench) -> None:
    envelope = json.loads(bench.file.read_text())
    envelope["content"]["source_root"] = ".."
    bench.file.write_text(json.dumps(envelope))
    with pytest.raises(UsageError, match="changed by hand"):
        bench.plan()
