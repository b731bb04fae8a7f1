"""Fixtures for tests that run modalrun as users do: as a process in a `World`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import forking
import one_for_all
import pytest
import shared_nursery
from commands import DEADLINE
from forking import Forge
from servers import sharing, workspace
from servers.together import Servers
from world import World, clean_environment

from modalrun.localmodal.preload import Preload
from modalrun.submit.preload import PRELOAD

pytest_plugins = ["servers.option"]

LONG = 600
"""Tests with a time limit of as many seconds or more begin first, so that no worker ends late."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests."""

    def limit(item: pytest.Item) -> float:
        marker = item.get_closest_marker("timeout")
        return float(marker.args[0]) if marker else 0.0

    items.sort(key=lambda item: limit(item) < LONG)


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Import the modules of sandboxes once for all tests; each server forks from the process."""
    folder = one_for_all.shared_folder(tmp_path_factory, "nursery")
    if sys.platform != "linux":
        yield folder / "socket"
        return
    program, request = [sys.executable, shared_nursery.__file__], json.dumps(PRELOAD.to_json())
    with one_for_all.running(
        folder, lambda path: [*program, str(path), request], clean_environment()
    ) as path:
        yield path


@pytest.fixture(scope="session")
def forge(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Forge | None]:
    """Start modalrun's commands with ZenML in memory (see `forking`)."""
    if sys.platform != "linux" or request.config.getoption("--cold-commands"):
        yield None
        return
    with contextlib.ExitStack() as running:

        def place(name: str, wanted: Preload) -> Path:
            folder = one_for_all.shared_folder(tmp_path_factory, f"forge-{name}")
            command = partial(forking.command, wanted)
            env = clean_environment() | dict(wanted.env)
            return running.enter_context(one_for_all.running(folder, command, env))

        yield Forge(place("commands", forking.COMMANDS), place("servers", forking.SERVERS))


@pytest.fixture(scope="session")
def zenml_template(tmp_path_factory: pytest.TempPathFactory, forge: Forge | None) -> Path:
    """Create a ZenML configuration with a fresh SQLite database once, because it takes 5 s."""
    root = one_for_all.shared_folder(tmp_path_factory, "zenml-template")
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "made").exists():
            _make_zenml(root, forge)
            (root / "made").touch()
    return root / "zenml-config"


def _make_zenml(root: Path, forge: Forge | None) -> None:
    environment = clean_environment() | {
        "HOME": str(root),
        "ZENML_CONFIG_PATH": str(root / "zenml-config"),
    }
    script = root / "ask_zenml.py"
    script.write_text("from zenml.client import Client; Client().active_stack_model")
    command = [sys.executable, "-m", script.stem]
    # Twice: the first use writes the active stack and project.
    for _ in range(2):
        with (root / "output").open("w+b") as output:
            file = output.fileno()
            done = forking.start(forge, command, environment, root, (file, file))
            assert done.wait(DEADLINE) == 0, (root / "output").read_text()


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Accept signals that background jobs (`&`, `nohup`) ignore; child processes inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Servers:
    """Provide the ZenML server, its database and the S3 store that all tests share."""
    return sharing.acquire(request.config)


@pytest.fixture
def server_world(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    nursery: Path,
    forge: Forge | None,
    servers: Servers,
) -> Iterator[World]:
    """Create a world on a real ZenML server, with its own project, stack and API key."""
    # Only tests that compare the user's configuration with what it was need one.
    option = request.config.getoption("--zenml-server")
    template = request.getfixturevalue("zenml_template") if option else None
    place = workspace.make(
        servers.api(), servers.s3, f"w-{tmp_path.name.lower()}-{os.urandom(3).hex()}"
    )
    made = World(tmp_path, template, nursery, forge, place=place, servers=servers)
    yield made
    made.close()
    workspace.clear(servers.api(), place)


@pytest.fixture
def local_world(
    tmp_path: Path,
    nursery: Path,
    forge: Forge | None,
    zenml_template: Path,
) -> Iterator[World]:
    """Create a world with ZenML's local SQLite store."""
    made = World(tmp_path, zenml_template, nursery, forge)
    yield made
    made.close()


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    """Create a world: on a real ZenML server with `--zenml-server`, else with a local store."""
    if not request.config.getoption("--zenml-server"):
        return cast("World", request.getfixturevalue("local_world"))
    reason = request.node.get_closest_marker("local_store")
    if reason is not None:
        pytest.skip(f"makes no sense on a ZenML server: {reason.args[0]}")
    return cast("World", request.getfixturevalue("server_world"))
