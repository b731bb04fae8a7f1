"""What a step has missed that is on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modalrun.errors import UsageError
from modalrun.plan.stack import StackDescription
from modalrun.run.failure import Failure
from modalrun.run.run_plan import Target
from modalrun.spec.precedence import Origin, SettingsLayer
from modalrun.spec.run_spec import RunSpec
from modalrun.submit.prepare import plan_deployment
from modalrun.submit.source.left_behind import left_behind
from modalrun.submit.source.selection import select
from modalrun.submit.source.tree import SourceSelection
from tests.unit.fake_zenml import compiled

CODE = "/state/sandboxes/sb-1/root/app/code"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("train.py", "data/labels.csv", "gone/features.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    (root / ".gitignore").write_text("data/\ngone/\n")
    (tmp_path / "beside.csv").write_text("x")
    return root


def remark(root: Path, kind: str, message: str, target: Target = "modal") -> str | None:
    return left_behind(SourceSelection(root), target, Failure(message, kind))


@pytest.mark.parametrize(
    "path",
    [
        "data/labels.csv",
        f"{CODE}/data/labels.csv",
        "/app/code/data/labels.csv",
        "/app/.modalrun-fgmt_6pz/code/data/labels.csv",
    ],
)
def test_a_file_that_an_ignore_file_left_out(root: Path, path: str) -> None:
    found = remark(root, "FileNotFoundError", f"[Errno 2] No such file or directory: '{path}'")
    assert found == (
        "data/labels.csv is in the source root, but did not go along (data/ in .gitignore). Take it"
        " along: 'source_include: [data/labels.csv]' in the run spec, or --set"
        " 'source_include=[data/labels.csv]'."
    )
    selection = SourceSelection(root, scripted=True)
    found = left_behind(selection, "modal", Failure(f"No such file: '{path}'", "FileNotFoundError"))
    assert found and found.endswith(
        "Take it along: ModalOrchestratorSettings(source_include=['data/labels.csv']) in the"
        " script; or, for all pipelines of the stack, zenml orchestrator update NAME"
        " --source_include='[\"data/labels.csv\"]'."
    )


def test_a_file_elsewhere_on_this_machine(root: Path) -> None:
    message = f'[Errno 2] No such file or directory: "{root.parent}/beside.csv"'
    found = remark(root, "FileNotFoundError", message)
    assert found and "is on this machine, and not in a sandbox" in found
    assert found.endswith("or keep it in a volume or a bucket.")
    found = remark(root, "FileNotFoundError", message, "local")
    assert found and found.endswith("and set MODALRUN_LOCAL_SHARED to its folder.")
    message = f"[Errno 2] No such file or directory: '{root}/train.py'"
    found = remark(root, "FileNotFoundError", message)
    assert found and "use a path relative to it (train.py)" in found


@pytest.mark.parametrize("path", ["data/labels.csv", f"{CODE}/data/labels.csv"])
def test_a_file_beside_a_source_root_of_a_src_layout(root: Path, path: str) -> None:
    (root / "src").mkdir()
    found = remark(root / "src", "FileNotFoundError", f"No such file or directory: '{path}'")
    assert found == (
        f"{root}/data/labels.csv is on this machine, and not in a sandbox: copy it below the source"
        f" root {root}/src, or keep it in a volume or a bucket. Or make {root} the source root"
        " ('source_root:' in a run spec, or 'zenml init' there for a script), with 'PYTHONPATH:"
        " src' in the 'environment' of the Docker settings."
    )


def test_a_file_above_the_source_root(root: Path) -> None:
    found = remark(root, "FileNotFoundError", "No such file or directory: '../beside.csv'")
    # With another source root that path would lead elsewhere.
    assert found and found.endswith("or keep it in a volume or a bucket.")


def test_a_file_of_the_current_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    found = remark(root, "FileNotFoundError", "No such file or directory: 'beside.csv'")
    assert found and found.startswith(f"{root.parent}/beside.csv is on this machine, and not in")
    monkeypatch.chdir(root / "data")
    found = remark(root, "FileNotFoundError", "No such file or directory: 'labels.csv'")
    assert found and "use a path relative to it (data/labels.csv)" in found


def test_a_folder_that_may_be_no_source_root_is_not_named_as_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    found = remark(root, "FileNotFoundError", "No such file or directory: 'beside.csv'")
    assert found and "Or make" not in found


def test_a_module_that_is_here(root: Path) -> None:
    found = remark(root, "ModuleNotFoundError", "No module named 'gone.features'")
    assert found and found.startswith("gone/features.py is in the source root")


def test_a_package_that_is_left_out_is_named_as_a_whole(root: Path) -> None:
    for name in ("churn/__init__.py", "churn/models/__init__.py", "churn/models/net.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    message = "No module named 'churn.models'"
    (root / ".gitignore").write_text("models/\n")
    found = remark(root, "ModuleNotFoundError", message)
    assert found and "--set 'source_include=[churn/models]'" in found
    include = ("churn/models",)
    files = {str(one.path) for one in select(SourceSelection(root, include=include)).files}
    assert {"churn/models/__init__.py", "churn/models/net.py"} <= files
    # Its other files went along.
    (root / ".gitignore").write_text("churn/models/__init__.py\n")
    found = remark(root, "ModuleNotFoundError", message)
    assert found and "--set 'source_include=[churn/models/__init__.py]'" in found


def test_a_package_that_is_the_source_root_itself(root: Path) -> None:
    found = remark(root, "ModuleNotFoundError", "No module named 'root'")
    assert found and f"Make {root.parent} the source root" in found


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'nowhere.csv'"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'train.py'"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: '../nowhere.csv'"),
        ("FileNotFoundError", "what\x00'\x00'"),
        ("ModuleNotFoundError", "No module named 'nobody_has_it'"),
        ("ModuleNotFoundError", "No module named 'pytest'"),
        ("ModuleNotFoundError", "No module named '../../x'"),
        ("KeyError", "'data/labels.csv'"),
    ],
)
def test_nothing_is_said_of_anything_else(root: Path, kind: str, message: str) -> None:
    assert remark(root, kind, message) is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("data/lables.csv", "Did you mean 'data/labels.csv'?"),
        ("dat/labels.csv", "Did you mean 'data/labels.csv'?"),
        ("data/*.csv", "Patterns are not read: name files or folders."),
        ("nowhere", "'source_include' has files and folders, relative to the source root."),
    ],
)
def test_what_source_include_names_and_is_not_there(root: Path, name: str, hint: str) -> None:
    with pytest.raises(UsageError, match="there is nothing of that name") as caught:
        select(SourceSelection(root, include=(name,))).check()
    assert caught.value.hint == hint


IN_SCRIPT = "ModalOrchestratorSettings(source_include=['train.py']) in the script"
IN_SPEC = "'source_include: [train.py]' in the run spec, or --set 'source_include=[train.py]'"


@pytest.mark.parametrize("scripted", [True, False])
@pytest.mark.parametrize("name", ["absent.csv", "../absent.csv"])
def test_source_include_of_the_orchestrator_is_said_to_be_that(
    root: Path, load: Callable[[str], RunSpec], name: str, *, scripted: bool
) -> None:
    spec = load("pipeline: train.pipeline\ntarget: local\nsource_root: root\n")
    if scripted:
        spec = RunSpec.of_snapshot("local", root, own_code=True)
    component = SettingsLayer({"source_include": ["train.py", name]})

    def check(**layers: SettingsLayer) -> None:
        by_origin = {Origin[origin]: layer for origin, layer in layers.items()}
        deployment = replace(compiled().deployment, layers=by_origin)
        stack = StackDescription("st-1", "default", orchestrator="my orch")
        select(plan_deployment(deployment, stack, spec).source).check()

    with pytest.raises(UsageError) as caught:
        check(COMPONENT=component)
    assert f"'source_include' of the stack's orchestrator names {name}: " in caught.value.problem
    assert (caught.value.hint or "").endswith(
        f" For this pipeline alone: {IN_SCRIPT if scripted else IN_SPEC}. For all pipelines of the"
        " stack: zenml orchestrator update 'my orch' --source_include='[\"train.py\"]'."
    )
    # It has been told what to type.
    check(COMPONENT=component, CODE_PIPELINE=SettingsLayer({"source_include": []}))
    with pytest.raises(UsageError, match=r"'source_include' \(pipeline in code\) names") as caught:
        check(CODE_PIPELINE=component)
    assert "orchestrator" not in (caught.value.hint or "")
