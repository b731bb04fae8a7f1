"""Where the modules of a pipeline come from."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from modalrun.errors import UsageError
from modalrun.spec.run_spec import RunSpec
from modalrun.spec.yaml_source import YamlSource
from modalrun.zenml_api.compiling.module_places import (
    Surroundings,
    check_places,
    code_folders,
    missing_module_hint,
)

NAME = "package_of_the_test"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    modules, path = set(sys.modules), list(sys.path)
    yield tmp_path / "root"
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def spec_of(root: Path) -> RunSpec:
    source = YamlSource(root / "run.yaml", {}, {("pipeline",): 1})
    return RunSpec("", None, "local", root, {}, source)


def package(folder: Path, *, text: str = "") -> None:
    (folder / NAME).mkdir(parents=True)
    (folder / NAME / "__init__.py").write_text("")
    (folder / NAME / "training.py").write_text(text)


def test_modules_of_the_source_root_are_found(root: Path) -> None:
    package(root, text="import json, yaml, zenml")
    sys.path.insert(0, str(root))
    before = Surroundings()
    importlib.import_module(f"{NAME}.training")
    check_places(spec_of(root), before, [f"{NAME}.training"], {})


def test_the_command_itself_is_no_module_of_the_pipeline(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `multiprocessing` adds this name, when the pipeline imports it.
    command = ModuleType("__mp_main__")
    command.__file__ = str(root.parent / "bin" / "__main__.py")
    sys.path.append(str(root.parent / "bin"))
    monkeypatch.delitem(sys.modules, "__mp_main__", raising=False)
    before = Surroundings()
    monkeypatch.setitem(sys.modules, "__mp_main__", command)
    check_places(spec_of(root), before, [], {})


def test_a_module_that_a_package_makes_is_in_no_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ModuleType("torch.ops")
    made.__file__ = "_ops.py"
    monkeypatch.chdir(root.parent)
    sys.path.append(str(root.parent.parent))
    before = Surroundings()
    monkeypatch.setitem(sys.modules, "torch.ops", made)
    check_places(spec_of(root), before, [], {})


@pytest.mark.parametrize("own", [True, False])
def test_a_src_layout_names_the_folder(root: Path, own: bool) -> None:
    package(root / "src")
    sys.path.insert(0, str(root / "src"))
    before = Surroundings()
    importlib.import_module(f"{NAME}.training")
    with pytest.raises(UsageError, match=f"'{NAME}' is imported from") as caught:
        check_places(spec_of(root), before, [f"{NAME}.training"] if own else [], {})
    assert "Set 'source_root: src'" in caught.value.hint
    assert "'PYTHONPATH: src' in the run spec" in caught.value.hint
    # With it, a sandbox finds them in the folder.
    variables = {"environment": {"PYTHONPATH": "lib:src"}}
    check_places(spec_of(root), before, [f"{NAME}.training"] if own else [], variables)
    check_places(spec_of(root), before, [], {"local_project_install_command": "pip install ."})


@pytest.mark.parametrize(
    ("value", "folders"),
    [
        (None, ["."]),
        ("", ["."]),
        ("src", [".", "src"]),
        ("/app/code/src:./lib/", [".", "src", "lib"]),
        ("/usr/lib:../beside:src/..", ["."]),
    ],
)
def test_pythonpath_of_the_docker_settings_names_folders_of_code(
    root: Path, value: str | None, folders: list[str]
) -> None:
    expected = [root / folder for folder in folders]
    assert code_folders(root, {"environment": {"PYTHONPATH": value}}) == expected
    docker = {"environment": {"PYTHONPATH": "other"}, "runtime_environment": {"PYTHONPATH": value}}
    assert code_folders(root, docker) == expected


def test_a_package_beside_the_source_root_is_refused_unless_it_is_asked_for(root: Path) -> None:
    package(root.parent / "beside")
    sys.path.append(str(root.parent / "beside"))
    before = Surroundings()
    importlib.import_module(f"{NAME}.training")
    with pytest.raises(UsageError, match="would not find it") as caught:
        check_places(spec_of(root), before, [], {})
    assert "PYTHONPATH" in caught.value.hint
    check_places(spec_of(root), before, [], {"requirements": ["Package-of.the_test==1.0"]})


def test_a_folder_that_the_code_puts_on_the_path_is_found_there_too(root: Path) -> None:
    package(root / "src")
    before = Surroundings()
    sys.path.insert(0, str(root / "src"))
    importlib.import_module(f"{NAME}.training")
    check_places(spec_of(root), before, [], {})
    # But a sandbox imports the module of a step before any other.
    with pytest.raises(UsageError, match=f"'{NAME}.training' is imported from"):
        check_places(spec_of(root), before, [f"{NAME}.training"], {})


def test_a_spec_without_a_pipeline_in_a_folder_of_the_machine() -> None:
    # Nothing above it has a name.
    assert "pip install absent" in (missing_module_hint("absent", spec_of(Path("/tmp"))) or "")


def test_a_missing_package_is_to_be_installed_here(root: Path) -> None:
    root.mkdir()
    hint = missing_module_hint("skimage.io", spec_of(root))
    assert hint == (
        f"scikit-image is not installed in this Python ({sys.executable}); the pipeline is also"
        " imported here: pip install scikit-image"
    )
    package(root / "src")
    hint = missing_module_hint(f"{NAME}.training", spec_of(root))
    assert hint and hint.startswith("Set 'source_root: src'")
    # A module that is missing in a package that is there.
    package(root)
    assert missing_module_hint(f"{NAME}.nothing", spec_of(root)) is None
