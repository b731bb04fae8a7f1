"""Modules that a pipeline imports and that an ignore rule leaves out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modalrun.errors import UsageError
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import prepare
from modalrun.submit.source.imports import check_imports
from modalrun.submit.source.selection import select
from modalrun.submit.source.tree import SourceSelection
from tests.unit.fake_zenml import compiled
from tests.unit.submit.submission_bench import Bench


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in (
        *("training.py", "local.py", "package/__init__.py", "package/plain.py"),
        *("data/__init__.py", "data/loader.py", "names/deep.py", "package/_version.py"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / ".gitignore").write_text("data/\n_version.py\nlocal.py\n")
    (root / ".dockerignore").write_text("names\n")
    return root


def check(root: Path, text: str, *modules: str, **values: tuple[str, ...]) -> None:
    (root / "training.py").write_text(text)
    selection = SourceSelection(
        root, modules=modules or ("training",), folders=(root, root / "package"), **values
    )
    check_imports(selection, select(selection))


@pytest.mark.parametrize(
    ("text", "named", "included"),
    [
        ("import data", "data (data/ in .gitignore)", "[data]"),
        ("from data.loader import load", "data (data/ in .gitignore)", "[data]"),
        ("from data import loader", "data (data/ in .gitignore)", "[data]"),
        ("import names.deep as deep", "names/deep.py (.dockerignore)", "[names/deep.py]"),
        ("from names import deep", "names/deep.py (.dockerignore)", "[names/deep.py]"),
        # By PYTHONPATH.
        ("import _version", "package/_version.py (_version.py in .gitignore)", None),
    ],
)
def test_an_error_names_what_is_left_out_and_how_it_goes(
    root: Path, text: str, named: str, included: str | None
) -> None:
    with pytest.raises(UsageError) as caught:
        check(root, f"{text}\n")
    assert caught.value.problem.endswith(f"that do not go to a sandbox: {named}.")
    included = included or "[package/_version.py]"
    assert f"'source_include: {included}' in the run spec" in (caught.value.hint or "")
    check(root, f"{text}\n", include=(included[1:-1],))


@pytest.mark.parametrize("text", ["from . import _version", "from ._version import v"])
def test_what_imported_modules_import(root: Path, text: str) -> None:
    (root / "package" / "__init__.py").write_text(f"{text}\n")
    with pytest.raises(UsageError, match=r"package/_version\.py \(_version\.py in \.gitignore\)"):
        check(root, "from package.plain import x\n")


def test_a_module_of_the_steps_themselves(root: Path) -> None:
    # As a deployment file or a snapshot names it.
    with pytest.raises(UsageError, match=r"local\.py \(local\.py in \.gitignore\)") as caught:
        check(root, "", "local", "training", include=("names",))
    assert "--set 'source_include=[names, local.py]'" in (caught.value.hint or "")


def test_a_script_has_no_run_spec_and_no_command_line(root: Path) -> None:
    spec = RunSpec.of_snapshot("local", root, own_code=True)
    (root / "training.py").write_text("import local\n")
    found = compiled()
    deployment = replace(found.deployment, modules=("training",))
    source = prepare.plan_deployment(deployment, found.stack_description, spec).source
    with pytest.raises(UsageError) as caught:
        check_imports(source, select(source))
    assert caught.value.hint == (
        "Take them along: ModalOrchestratorSettings(source_include=['local.py']) in the script; or,"
        " for all pipelines of the stack, zenml orchestrator update NAME"
        " --source_include='[\"local.py\"]'."
    )


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    import local\nexcept ImportError:\n    pass",
        "if TYPE_CHECKING:\n    import local",
        "def train():\n    import local",
        "import numpy, os, absent.module",
        "import data.",
        "from ...above import x",
        "import names",
        f"import {'x' * 300}",
    ],
)
def test_what_may_be_for_this_machine_alone(root: Path, text: str) -> None:
    check(root, text)
    check(root, text, "training", "/etc/x", "\0", "..", "")


def test_a_plan_knows_the_modules_unless_the_project_is_installed(
    root: Path, load: Callable[[str], RunSpec]
) -> None:
    spec = load("pipeline: training.pipeline\ntarget: local\nsource_root: root\n")
    docker = {"environment": {"PYTHONPATH": "package"}}
    found = compiled()
    deployment = replace(found.deployment, modules=("training",), docker=docker)
    source = prepare.plan_deployment(deployment, found.stack_description, spec).source
    assert (source.modules, source.folders) == (("training",), (root, root / "package"))
    docker["local_project_install_command"] = "pip install ."  # type: ignore[assignment]
    source = prepare.plan_deployment(deployment, found.stack_description, spec).source
    assert source.modules == ()


def test_nothing_is_created_for_a_run_that_lacks_a_module(
    root: Path, load: Callable[[str], RunSpec]
) -> None:
    (root / "training.py").write_text("import data\n")
    bench = Bench(load("pipeline: training.pipeline\ntarget: local\nsource_root: root\n"))
    job = bench.submission.job
    source = replace(job.source, modules=("training",), folders=(root,))
    bench.submission.job = replace(job, source=source)
    with pytest.raises(UsageError, match="do not go to a sandbox: data"):
        bench.create()
    assert bench.effects == []
