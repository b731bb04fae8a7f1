"""Read ZenML's configuration without importing ZenML."""

from pathlib import Path

import pytest

from modalrun.zenml_api import config_files


def test_folder_is_zenmls_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zenml.utils.io_utils import get_global_config_directory

    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path))
    assert config_files.folder() == tmp_path
    monkeypatch.delenv("ZENML_CONFIG_PATH")
    assert config_files.folder() == Path(get_global_config_directory())
