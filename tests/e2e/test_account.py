"""What a Modal account is asked: its workspace. The local server stands for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modalrun.errors import AuthenticationError
from modalrun.localmodal import launcher
from modalrun.modal_api import Connection

pytestmark = pytest.mark.e2e


@pytest.fixture
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A connection that takes the local server for Modal's cloud."""
    state = tmp_path / "state"
    for name, value in launcher.ensure_running(state).environ().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MODALRUN_LOCAL_STATE", str(state))
    made = Connection("local")
    made.target = "modal"
    yield made
    launcher.stop(state)


def test_workspace(connection: Connection) -> None:
    assert connection.workspace() == "local"
    connection.check_workspace("local", "run spec, pipeline")
    with pytest.raises(AuthenticationError) as caught:
        connection.check_workspace("my-company", "run spec, pipeline")
    for part in ("'local'", "'my-company'", "run spec, pipeline", "Nothing was created"):
        assert part in caught.value.message
    connection.target = "local"
    connection.check_workspace("my-company", "run spec, pipeline")
