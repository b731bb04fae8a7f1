"""What is said of a module that is not in the source root, but near it."""

from pathlib import Path

import pytest

from modalrun.zenml_api.compiling.module_places import subfolder_hint


@pytest.mark.parametrize(
    ("file", "root"),
    [
        ("project/configs/src/fraud/__init__.py", "src"),
        ("project/src/fraud/__init__.py", "../src"),
        ("project/fraud.py", ".."),
        ("project/other/fraud.py", None),
        ("fraud.py", None),
    ],
)
def test_the_folder_of_a_module_is_named(tmp_path: Path, file: str, root: str | None) -> None:
    source_root = tmp_path / "project" / "configs"
    for folder in (source_root, (tmp_path / file).parent):
        folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()

    hint = subfolder_hint("fraud.pipeline", source_root)

    assert hint is None if root is None else hint and hint.startswith(f"Set 'source_root: {root}'")
