"""Finding, starting and ending the server."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modal
import psutil
import pytest
from modal_proto.api_pb2 import GenericResult

from modalrun.errors import ModalrunError, UsageError
from modalrun.localmodal import launcher, server_lock
from modalrun.localmodal.launcher import StateDir
from modalrun.localmodal.server_info import ServerInfo
from modalrun.localmodal.server_lock import is_locked, start_lock
from tests import folders

from .support import (
    PATIENCE,
    TREE,
    Sdk,
    kill_server,
    processes_in,
    servers_of,
    wait_for_end,
    wait_until_gone,
)

SERVER = [sys.executable, "-m", "modalrun.localmodal"]
ENSURE = """
import sys
import threading
from pathlib import Path
from modalrun.localmodal import launcher, server_lock
sys.stdin.read()
print(launcher.ensure_running(Path(sys.argv[1])).pid)
"""


@pytest.fixture
def sdk(start: Callable[..., ServerInfo], connect: Callable[[ServerInfo], Sdk]) -> Sdk:
    """A server that the launcher has started."""
    return connect(start())


def test_racing_commands_start_one_server(state: Path) -> None:
    reader, writer = os.pipe()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", ENSURE, str(state)],
            stdin=reader,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": TREE},
        )
        for _ in range(6)
    ]
    os.close(reader)
    os.close(writer)
    pids = {racer.communicate(timeout=PATIENCE)[0].strip() for racer in racers}
    found = launcher.running(state)
    assert found is not None
    assert pids == {str(found.pid)}
    assert len(servers_of(state)) == 1


def test_it_is_found_again(start: Callable[..., ServerInfo], state: Path) -> None:
    assert launcher.running(state) is None
    first = start()
    assert start() == first == launcher.running(state)
    assert launcher.stop(state) is True
    assert launcher.stop(state) is False
    assert launcher.running(state) is None
    again = start()
    assert again.pid != first.pid


def test_a_server_of_another_python_gives_way(
    sdk: Sdk, start: Callable[..., ServerInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", "/another")
    sandbox = sdk.create("sleep", "1000")
    assert start().pid == sdk.info.pid
    sandbox.terminate(wait=True)
    assert start().pid != sdk.info.pid


def test_the_folder_is_private(sdk: Sdk) -> None:
    sdk.create("echo", "x", env={"A": "b"}).wait()
    state = sdk.info.state_dir
    # What is below the folder of a sandbox is that sandbox's.
    assert state.stat().st_mode & 0o777 == 0o700
    open_to_others = set()
    for path in folders.below(state):
        # The folder of a sandbox that has ended is taken away meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if "root" not in path.relative_to(state).parts and path.stat().st_mode & 0o077:
                open_to_others.add(path)
    assert open_to_others == set()


def test_the_server_listens_on_loopback_only(sdk: Sdk) -> None:
    (server,) = servers_of(sdk.info.state_dir)
    # Not the method of a process: its name differs between the versions of psutil.
    theirs = [one for one in psutil.net_connections("inet") if one.pid == server.pid]
    assert [one.laddr.ip for one in theirs if one.status == "LISTEN"] == ["127.0.0.1"]


def test_the_environment_it_gives(
    start: Callable[..., ServerInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org,localhost")
    info = start()
    values = info.environ()
    assert tuple(values) == launcher.VARIABLES
    assert values["NO_PROXY"] == "example.org,127.0.0.1,localhost"
    assert values["MODAL_SERVER_URL"].startswith("http://127.0.0.1:")
    assert Path(values["MODAL_CONFIG_PATH"]).read_text() == ""
    assert info.token_secret not in repr(info)


def test_a_stale_info_file(start: Callable[..., ServerInfo], state: Path) -> None:
    first = start()
    kill_server(first)
    info = StateDir(state).info_file
    assert info.exists()
    assert launcher.running(state) is None
    # A reused pid does not mean that the server runs.
    info.write_text(json.dumps({**json.loads(info.read_text()), "pid": os.getpid()}))
    assert launcher.running(state) is None
    assert launcher.stop(state) is False
    assert start().pid not in (first.pid, os.getpid())


def test_idle_end(start: Callable[..., ServerInfo], state: Path) -> None:
    start(idle_timeout=0.2)
    wait_for_end(state)
    assert not StateDir(state).info_file.exists()
    assert "it was idle" in StateDir(state).server_log.read_text()


def test_a_sandbox_keeps_the_server_alive(
    start: Callable[..., ServerInfo], connect: Callable[[ServerInfo], Sdk], state: Path
) -> None:
    sdk = connect(start(idle_timeout=0.5))
    sandbox = sdk.create("sh", "-c", "sleep 1.5; echo done")
    sandbox.detach()
    wait_for_end(state)
    again = connect(start())
    assert again.sandbox(sandbox.object_id).stdout.read() == "done\n"
    assert again.record(sandbox).status == GenericResult.GENERIC_STATUS_SUCCESS


def test_an_idle_server_waits_for_a_command_that_looks(state: Path) -> None:
    StateDir(state).create()
    with start_lock(StateDir(state)):
        process = subprocess.Popen(
            [*SERVER, "--state-dir", str(state), "--idle-timeout", "0.1", "--ready-fd", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": TREE},
        )
        assert process.stdout is not None and process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        assert StateDir(state).info_file.exists()
    assert process.wait(PATIENCE) == 0
    process.stdout.close()


@pytest.mark.parametrize("end", ["stop", "SIGTERM"])
def test_a_graceful_end_terminates_sandboxes(
    sdk: Sdk, connect: Callable[[ServerInfo], Sdk], backend: dict[str, Any], end: str
) -> None:
    state = sdk.info.state_dir
    sandbox = sdk.create("sh", "-c", "echo $$; sleep 1000", **backend)
    pid = int(next(iter(sandbox.stdout)))
    if end == "stop":
        assert launcher.stop(state)
    else:
        os.kill(sdk.info.pid, signal.SIGTERM)
        wait_for_end(state)
    assert processes_in(sandbox) == {}
    assert sdk.record(sandbox).status == GenericResult.GENERIC_STATUS_TERMINATED
    again = connect(launcher.ensure_running(state)).sandbox(sandbox.object_id)
    assert again.returncode == 137
    assert again.stdout.read() == f"{pid}\n"


def test_kill_9_of_the_server(
    sdk: Sdk, connect: Callable[[ServerInfo], Sdk], backend: dict[str, Any]
) -> None:
    state = sdk.info.state_dir
    done = sdk.create("echo", "done", **backend)
    done.wait()
    script = "setsid sleep 1000 & printf partial >&2; echo $! $$; sleep 1000"
    sandbox = sdk.create("sh", "-c", script, **backend)
    inner = next(iter(sandbox.stdout)).split()
    running = processes_in(sandbox)
    kill_server(sdk.info)
    for pid in inner:
        wait_until_gone(running[int(pid)].pid)
    again = connect(launcher.ensure_running(state))
    lost = again.sandbox(sandbox.object_id)
    assert lost.returncode not in (None, 0)
    record = again.record(sandbox)
    assert record.status == GenericResult.GENERIC_STATUS_INTERNAL_FAILURE
    assert "server was killed" in record.exception
    assert lost.stdout.read() == "{} {}\n".format(*inner)
    assert "partial" in [entry.message for entry in lost.logs.tail()]
    assert again.sandbox(done.object_id).returncode == 0
    assert list(modal.Sandbox.list(app_id=again.app().app_id, client=again.client)) == []


def test_a_server_that_stood_still_keeps_its_sandboxes(
    sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a pause of the machine that is longer than any limit."""
    sandbox = sdk.create("sleep", "1000")
    os.kill(sdk.info.pid, signal.SIGSTOP)

    def goes_on(state: StateDir) -> bool:
        os.kill(sdk.info.pid, signal.SIGCONT)
        return is_locked(state)

    monkeypatch.setattr(launcher, "is_locked", goes_on)
    # Less than one question takes.
    monkeypatch.setattr(launcher, "_STOP_LIMIT", 1)
    assert launcher.ensure_running(sdk.info.state_dir) == sdk.info
    assert sandbox.poll() is None


def test_a_look_at_the_lock_keeps_no_server_from_it(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    state.create()
    state.server_lock.touch()
    # As `is_locked` does for a moment.
    looking = os.open(state.server_lock, os.O_RDWR)
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.1, os.close, [looking]).start()

    assert server_lock.hold(state)
    assert is_locked(state)
    assert not server_lock.hold(state)


@pytest.mark.exhaustive
def test_a_server_that_does_not_answer_is_replaced(
    start: Callable[..., ServerInfo], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start()
    os.kill(first.pid, signal.SIGSTOP)
    monkeypatch.setattr(launcher, "_STOP_LIMIT", 0)
    assert start().pid != first.pid
    wait_until_gone(first.pid)


def test_old_sandboxes_are_forgotten(
    sdk: Sdk, connect: Callable[[ServerInfo], Sdk], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = sdk.info.state_dir
    sandbox = sdk.create("echo", "old")
    sandbox.wait()
    launcher.stop(state)
    monkeypatch.setenv("MODALRUN_LOCAL_RETENTION_DAYS", "0")
    again = connect(launcher.ensure_running(state))
    with pytest.raises(modal.exception.NotFoundError):
        again.sandbox(sandbox.object_id)
    assert not StateDir(state).logs(sandbox.object_id).exists()


@pytest.mark.parametrize("name", ["IDLE_TIMEOUT", "RETENTION_DAYS", "LOG_LIMIT"])
@pytest.mark.parametrize("text", ["1GB", "inf", "nan"])
def test_a_variable_that_is_no_number(
    state: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"MODALRUN_LOCAL_{name}", text)
    with pytest.raises(UsageError, match=f"^MODALRUN_LOCAL_{name} is not a number: '{text}'"):
        launcher.ensure_running(state)


def test_a_server_that_cannot_start(state: Path) -> None:
    StateDir(state).create()
    StateDir(state).database.write_text("no database " * 1000)
    with pytest.raises(ModalrunError, match=r"(?s)did not start.*not a database") as caught:
        launcher.ensure_running(state)
    assert str(StateDir(state).server_log) in str(caught.value.hint)


def test_a_state_folder_that_cannot_be_used(state: Path) -> None:
    state.write_text("a file")
    with pytest.raises(ModalrunError, match="cannot be used"):
        launcher.ensure_running(state)
    state.unlink()


def test_the_exported_variables_lead_to_the_server_after_it_has_ended(
    start: Callable[..., ServerInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start()
    for name, value in first.environ().items():
        monkeypatch.setenv(name, value)
    assert launcher.stop()
    again = launcher.ensure_running()
    assert again.state_dir == first.state_dir
