"""What is said of a module that is not in the source root, but near it."""

import shlex
from pathlib import Path

import pytest

from modalrun.spec.overrides import Override
from modalrun.spec.run_spec import RunSpec, load_spec
from modalrun.zenml_api.compiling.module_places import missing_module_hint, subfolder_hint


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "project" / "configs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def spec_with(*lines: str) -> RunSpec:
    path = Path("configs/run.yaml")
    path.write_text("\n".join(["pipeline: fraud.pipeline.training", *lines]))
    return load_spec(path)


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize(
    ("file", "root"),
    [
        ("configs/src/fraud/__init__.py", "src"),
        ("src/fraud/__init__.py", "../src"),
        ("fraud.py", ".."),
        ("other/fraud.py", None),
        ("../fraud.py", None),
    ],
)
def test_the_folder_of_a_module_is_named(project: Path, file: str, root: str | None) -> None:
    touch(project / file)

    hint = subfolder_hint("fraud.pipeline", spec_with())

    assert hint is None if root is None else hint and hint.startswith(f"Set 'source_root: {root}'")


@pytest.mark.parametrize("source_root", [None, "..", "../code"])
def test_a_folder_is_named_relative_to_the_run_spec(project: Path, source_root: str | None) -> None:
    touch(project / "src" / "fraud" / "__init__.py")
    (project / "code").mkdir()
    (project / ".zen").mkdir()

    hint = subfolder_hint(
        "fraud.pipeline", spec_with(*[f"source_root: {source_root}"] * bool(source_root))
    )

    assert hint
    assert hint.startswith("Set 'source_root: ../src' in the run spec")
    assert spec_with("source_root: ../src").source_root == project / "src"


def test_without_a_run_spec_the_option_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".zen").mkdir()
    touch(project / "a b" / "fraud.py")
    monkeypatch.chdir(project / "a b")
    spec = load_spec(Path("fraud:training"))
    assert spec.source_root == project

    hint = subfolder_hint("fraud", spec)

    assert hint
    assert hint.startswith("Use '--source-root ")
    option, folder = shlex.split(
        hint[len("Use '") :].partition(", the folder")[0].removesuffix("'")
    )
    moved = load_spec(
        Path("fraud:training"), overrides=[Override(option, ("source_root",), folder)]
    )
    assert moved.source_root == project / "a b"


STEPS = "from churn.steps import load\n"


@pytest.mark.parametrize(
    ("root", "missing", "hint"),
    [
        # What the command line names, and where it is from; then a run spec in 'churn'.
        ("..", "train", "Use 'churn.train:flow': the pipeline is in the package 'churn'."),
        (".", "churn", "Use 'churn.train:flow' with '--source-root {shop}': the pipeline is in"),
        (None, "train", "Set 'pipeline: churn.train.flow' in the run spec: the pipeline is"),
        (None, "churn", "Set 'source_root: ..' and 'pipeline: churn.train.flow' in the run spec:"),
    ],
)
@pytest.mark.parametrize(("text", "init"), [(STEPS, False), (STEPS, True), ("", True)])
def test_a_pipeline_in_a_package_is_named_with_it(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    root: str | None,
    missing: str,
    hint: str,
    text: str,
    init: bool,
) -> None:
    package = project / "churn"
    touch(package / "steps.py")
    (package / "train.py").write_text(text)
    if init:
        touch(package / "__init__.py")
    monkeypatch.chdir(package)
    given = [Override("--source-root", ("source_root",), root)] if root else []
    if root is None:
        above = ".." if missing == "train" else "."
        Path("run.yaml").write_text(f"pipeline: train.flow\nsource_root: {above}\n")
    spec = load_spec(Path("train:flow" if root else "run.yaml"), overrides=given)

    found = missing_module_hint(missing, spec) or ""

    assert found.startswith(hint.format(shop=project))
    assert "pip install absent" in (missing_module_hint("absent", spec) or "")


def test_a_pipeline_of_scripts_is_named_without_their_folder(project: Path) -> None:
    touch(project / "churn" / "steps.py")
    (project / "churn" / "train.py").write_text("from steps import load\n")
    spec = load_spec(Path("churn.train:flow"))
    hint = subfolder_hint("steps", spec) or ""
    assert hint.startswith(f"Use 'train:flow' with '--source-root {project}/churn', the folder")
