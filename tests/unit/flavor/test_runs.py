"""What is checked of a script that a registered stack runs."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from zenml.utils import source_utils

from modalrun.errors import UsageError
from modalrun.flavor import runs


def test_a_script_in_the_home_folder_is_told_what_zenml_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(source_utils, "get_source_root", lambda: str(tmp_path))

    with pytest.raises(UsageError, match="is your home folder") as caught:
        runs._source_root(SimpleNamespace(run_metadata={}))  # type: ignore[arg-type]

    # A script has neither a run spec nor an option.
    assert "the script" in (caught.value.hint or "")
    assert "--source-root" not in (caught.value.hint or "")
