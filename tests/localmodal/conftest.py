"""Give each test a separate server: a state folder, a port, a process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forking
import modal
import pytest
from forking import Forge

from modalrun.localmodal import launcher
from modalrun.localmodal.server_info import ServerInfo
from modalrun.localmodal.storage.paths import StateDir
from tests.folders import remove_sandboxes
from tests.world import clean_environment

from .support import Sdk, close, processes_of

IDLE_TIMEOUT = 120.0


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty state folder; whatever server comes to run on it is stopped after the test."""
    for name in list(os.environ):
        if name.startswith(("MODAL_", "MODALRUN_LOCAL_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "state"
    yield folder
    launcher.stop(folder)
    assert processes_of(folder) == []
    remove_sandboxes(folder)
    log = StateDir(folder).server_log
    if log.exists():
        assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture
def start(state: Path) -> Callable[..., ServerInfo]:
    """Start the server of the test, or find it."""

    def ensure(idle_timeout: float = IDLE_TIMEOUT) -> ServerInfo:
        return launcher.ensure_running(state, idle_timeout=idle_timeout)

    return ensure


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[ServerInfo], Sdk]]:
    """Make an SDK client for a server."""
    clients = []
    if sys.version_info < (3, 11):
        # The newest one has no such Python: `debian_slim()` is refused.
        monkeypatch.setenv("MODAL_IMAGE_BUILDER_VERSION", "2025.06")

    def to(info: ServerInfo) -> Sdk:
        for name, value in info.environ().items():
            monkeypatch.setenv(name, value)
        client = modal.Client.from_credentials(info.token_id, info.token_secret)
        clients.append(client)
        return Sdk(info, client)

    yield to
    for client in clients:
        close(client)


@pytest.fixture
def sdk(
    state: Path,
    forge: Forge | None,
    start: Callable[..., ServerInfo],
    connect: Callable[[ServerInfo], Sdk],
) -> Sdk:
    """A running server and the SDK pointed at it."""
    given = {
        name: value for name, value in os.environ.items() if name.startswith(("MODALRUN_", "HOME"))
    }
    forking.serve(forge, state, clean_environment() | given, IDLE_TIMEOUT)
    return connect(start())


@pytest.fixture(params=["v1", "v2"])
def backend(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What `Sandbox.create` needs for each of the SDK's backends: V1 is the one for GPUs."""
    return {"gpu": "T4"} if request.param == "v1" else {}
