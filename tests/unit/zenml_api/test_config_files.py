"""Read ZenML's configuration without importing ZenML."""

import time
from pathlib import Path

import pytest

from modalrun.errors import UsageError
from modalrun.zenml_api import config_files


def test_folder_is_zenmls_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zenml.utils.io_utils import get_global_config_directory

    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path))
    assert config_files.folder() == tmp_path
    monkeypatch.delenv("ZENML_CONFIG_PATH")
    assert config_files.folder() == Path(get_global_config_directory())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\x00\xff{[", "is not YAML"),
        (b"store: {", "is not YAML"),
        (b"- 1", "is damaged"),
        (b"store: 5", "is damaged"),
    ],
)
def test_a_damaged_configuration_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, problem: str
) -> None:
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path))
    config_files.require_readable()
    (tmp_path / "config.yaml").write_bytes(content)

    with pytest.raises(UsageError, match=f"config.yaml {problem}") as raised:
        config_files.require_readable()

    assert (tmp_path / "config.yaml").read_bytes() == content
    assert raised.value.hint
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(UsageError, match="Is a directory"):
        config_files.require_readable()


def test_a_whole_configuration_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path))
    (tmp_path / "config.yaml").write_text("version: 0.98.0\nstore: {type: sql, url: x}\n")
    config_files.require_readable()
    (tmp_path / "config.yaml").write_text("version: 0.98.0\nstore:\n")
    config_files.require_readable()


def test_a_configuration_that_is_just_being_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path))
    path = tmp_path / "config.yaml"
    path.write_text("")
    # The other process writes on while this one waits.
    monkeypatch.setattr(time, "sleep", lambda _: path.write_text("store: {type: sql}"))
    config_files.require_readable()
