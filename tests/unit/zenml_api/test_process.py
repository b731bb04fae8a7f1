"""Prepare a process for ZenML before ZenML is imported."""

import os
import socket
from pathlib import Path

import pytest

from modalrun.errors import ConnectionLostError
from modalrun.zenml_api import process


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty configuration folder, and nothing about ZenML or proxies in the environment."""
    for name in list(os.environ):
        if name.startswith("ZENML_") or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    folder = tmp_path / "config"
    folder.mkdir()
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(folder))
    # So that what `protected_configuration` sets is undone.
    monkeypatch.setenv("ZENML_LOCAL_STORES_PATH", "x")
    monkeypatch.delenv("ZENML_LOCAL_STORES_PATH")
    return folder


@pytest.fixture
def absent() -> str:
    """The address of a server that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_server_of_the_configuration(config: Path, absent: str) -> None:
    (config / "config.yaml").write_text(f"store:\n  url: {absent}\n", encoding="utf-8")
    with pytest.raises(ConnectionLostError) as caught:
        process.require_server()
    assert absent in caught.value.message
    assert "'modalrun doctor'" in str(caught.value.hint)


def test_server_of_the_environment_wins(
    config: Path, absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config / "config.yaml").write_text("store:\n  url: sqlite:////x\n", encoding="utf-8")
    monkeypatch.setenv("ZENML_STORE_URL", absent)
    with pytest.raises(ConnectionLostError):
        process.require_server()


def test_server_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("ZENML_STORE_URL", url)
        process.require_server()


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_no_connection_is_tried_behind_a_proxy(
    absent: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("ZENML_STORE_URL", absent)
    monkeypatch.setenv(name, "http://proxy:3128")
    process.require_server()


@pytest.mark.parametrize(
    "text", ["", "a: [", "store:\n", "store: 5\n", "- a\n", "store: {url: 'sqlite:////x.db'}\n"]
)
def test_configuration_that_names_no_server(config: Path, text: str) -> None:
    (config / "config.yaml").write_text(text, encoding="utf-8")
    process.require_server()


def test_no_configuration(config: Path) -> None:
    process.require_server()


def test_configuration_that_is_not_text(config: Path) -> None:
    (config / "config.yaml").write_bytes(b"\xff\xfe")
    process.require_server()


@pytest.mark.parametrize("url", ["http://localhost:port", "http://localhost:99999"])
def test_address_with_an_invalid_port(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENML_STORE_URL", url)
    with pytest.raises(ConnectionLostError):
        process.require_server()


def test_protection_without_a_store_in_the_environment(config: Path) -> None:
    with process.protected_configuration():
        assert os.environ["ZENML_CONFIG_PATH"] == str(config)


@pytest.mark.parametrize("name", ["ZENML_STORE_URL", "ZENML_STORE_API_KEY"])
def test_protection(config: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (config / "config.yaml").write_text("store: {}\n", encoding="utf-8")
    (config / "local_stores").mkdir()
    monkeypatch.setenv(name, "something")
    with process.protected_configuration():
        copy = Path(os.environ["ZENML_CONFIG_PATH"])
        assert copy != config
        assert os.environ["ZENML_LOCAL_STORES_PATH"] == str(config / "local_stores")
        assert [path.name for path in copy.iterdir()] == ["config.yaml"]
        assert copy.stat().st_mode & 0o077 == 0, "it may hold credentials"
        (copy / "config.yaml").write_text("changed", encoding="utf-8")
        assert (config / "config.yaml").read_text(encoding="utf-8") == "store: {}\n"
    assert not copy.exists()
