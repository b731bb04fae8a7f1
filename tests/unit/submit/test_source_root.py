"""Folders that can't be the source root of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import modalrun
from modalrun.errors import UsageError
from modalrun.spec.run_spec import load_spec
from modalrun.submit.source.root import check_root


@pytest.mark.parametrize(
    "name", ["modal.py", "zenml/__init__.py", "yaml.py", "logging.py", "pydantic/__init__.py"]
)
def test_a_module_that_hides_another_one_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    module = name.partition("/")[0].removesuffix(".py")
    with pytest.raises(UsageError, match=f"hides the module '{module}'") as caught:
        check_root(tmp_path)
    assert str(tmp_path / module) in caught.value.message


def test_a_clone_of_modalrun_is_to_be_installed(tmp_path: Path) -> None:
    (tmp_path / "modalrun").mkdir()
    (tmp_path / "modalrun" / "__init__.py").write_text("")
    with pytest.raises(UsageError, match="hides the module 'modalrun'") as caught:
        check_root(tmp_path)
    assert "pip install -e ." in str(caught.value.hint)


@pytest.mark.parametrize(
    "name",
    ["training.py", "lib/yaml.py", "lib/__init__.py", "yaml/data.csv", "__main__.py", "setup.py"],
)
def test_other_modules_are_not(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    check_root(tmp_path)


def test_the_repository_of_modalrun_is_a_source_root() -> None:
    check_root(Path(modalrun.__file__).parents[1])


def test_a_module_of_the_project_that_is_imported_already_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_module_of_the_test.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("own_module_of_the_test")
    check_root(tmp_path)


def test_a_file_in_the_home_folder_needs_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "training.py").write_text("")
    # The file is below no other source root.
    spec = load_spec(tmp_path / "training.py:training")
    with pytest.raises(UsageError, match="is your home folder") as caught:
        check_root(spec.source_root, spec.root_hint)
    assert "needs one of its own" in (caught.value.hint or "")
