"""What a Modal account is asked: its workspace. The local server stands for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modalrun.errors import AuthenticationError
from modalrun.localmodal import launcher
from modalrun.modal_api import account_check
from modalrun.modal_api.account_check import AccountNeeds
from modalrun.modal_api.client import Connection

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
    def check(name: str) -> None:
        needs = AccountNeeds(workspace=(name, "run spec, pipeline"))
        account_check.check_workspace(connection, needs)

    assert account_check.workspace(connection) == "local"
    check("local")
    with pytest.raises(AuthenticationError) as caught:
        check("my-company")
    for part in ("'local'", "'my-company'", "run spec, pipeline", "Nothing was created"):
        assert part in caught.value.message
    connection.target = "local"
    check("my-company")
