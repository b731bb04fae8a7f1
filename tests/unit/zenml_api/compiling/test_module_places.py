"""What is said of a module that is not in the source root, but near it."""

import shlex
from pathlib import Path

import pytest

from modalrun.spec.overrides import Override
from modalrun.spec.run_spec import RunSpec, load_spec
from modalrun.zenml_api.compiling.module_places import subfolder_hint


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
