"""A neighbour on the machine gets nothing from the local Modal server, and can do nothing to it."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import modal
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modal.exception import AuthError
from typer.testing import CliRunner

from modalrun.cli.local import app as local
from modalrun.errors import AuthenticationError, InternalError, NotFoundError
from modalrun.localmodal import launcher, peers
from modalrun.localmodal.sandbox import shared_nursery
from modalrun.localmodal.server.auth import Guard
from modalrun.localmodal.server_info import ServerInfo
from modalrun.localmodal.storage.paths import StateDir
from modalrun.modal_api.client import Connection
from tests.localmodal.support import PATIENCE, Sdk, close, kill_server

if TYPE_CHECKING:
    from tests.world import World

Start = Callable[..., ServerInfo]
Connect = Callable[[ServerInfo], Sdk]


class Neighbour:
    """Listens on a port, answers every request as a willing server would, and keeps what it got."""

    def __init__(self, url: str, pid: int) -> None:
        self.heard = b""
        body = json.dumps({"pid": pid, "python": sys.prefix, "running": []}).encode()
        self._answer = b"HTTP/1.1 200 OK\r\n\r\n" + body
        self._listener = socket.create_server(("127.0.0.1", int(url.rpartition(":")[2])))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                channel, _ = self._listener.accept()
                with channel, contextlib.suppress(OSError):
                    channel.settimeout(1)
                    self.heard += channel.recv(65536) or b"(a connection)"
                    channel.sendall(self._answer)

    def close(self) -> None:
        # A thread may sit in `accept`.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.mark.e2e
def test_a_run_on_the_next_server(world: World) -> None:
    address = world.server()
    info = launcher.running(world.state)
    assert info is not None
    kill_server(info)
    neighbour = Neighbour(info.url, info.pid)
    spec = "pipeline: diamond.diamond\ntarget: local\n"
    # As after an `eval` in the time of the first server.
    done = world.submit(spec, **address)
    neighbour.close()
    assert (done.exit_code, neighbour.heard) == (0, b""), done.stderr
    again = launcher.running(world.state)
    assert again is not None and again.token_secret != info.token_secret


@pytest.fixture
def dead(start: Start, state: Path) -> Iterator[tuple[ServerInfo, Neighbour]]:
    """A server that was killed, and the neighbour that has got its port."""
    info = start()
    kill_server(info)
    # Even a pid in the info file that runs again proves nothing.
    file = StateDir(state).info_file
    file.write_text(json.dumps({**json.loads(file.read_text()), "pid": os.getpid()}))
    neighbour = Neighbour(info.url, os.getpid())
    yield info, neighbour
    neighbour.close()


def test_whoever_has_the_port_of_a_dead_server_hears_nothing(
    dead: tuple[ServerInfo, Neighbour], state: Path
) -> None:
    _, neighbour = dead
    folder = ["--state-dir", str(state)]
    assert CliRunner().invoke(local, ["status", *folder]).exit_code == 4
    assert launcher.running(state) is None
    for ask in (lambda: launcher.kill("sb-1", state), lambda: list(launcher.follow(None, state))):
        with pytest.raises(NotFoundError):
            ask()
    assert launcher.stop(state) is False
    assert CliRunner().invoke(local, ["env", *folder]).exit_code == 0
    assert neighbour.heard == b""


def test_modalrun_sends_nothing_with_the_variables_of_a_dead_server(
    dead: tuple[ServerInfo, Neighbour], monkeypatch: pytest.MonkeyPatch
) -> None:
    info, neighbour = dead
    for name, value in info.environ().items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        with pytest.raises(AuthenticationError, match="has ended") as caught:
            Connection("modal")
        assert "modalrun local env" in str(caught.value.hint)
        # The next server has another address and token.
        launcher.ensure_running()
    assert neighbour.heard == b""


def test_each_server_has_its_own_token_and_port(
    start: Start, connect: Connect, state: Path
) -> None:
    first = start()
    launcher.stop(state)
    second = start()
    assert not {first.url, first.token_id, first.token_secret} & set(second.environ().values())
    connect(second)
    client = modal.Client.from_credentials(first.token_id, first.token_secret)
    with pytest.raises(AuthError, match="modalrun local env"):
        modal.App.lookup("tests", create_if_missing=True, client=client)
    close(client)
    # No file of an earlier server names its token.
    launcher.stop(state)
    names = [path for path in state.rglob("*") if path.is_file()]
    assert not [p for p in names if second.token_secret.encode() in p.read_bytes()]


def test_local_env_says_when_to_run_it_again(state: Path) -> None:
    done = CliRunner().invoke(local, ["env", "--state-dir", str(state)])
    assert "run this command again" in done.stderr
    assert all(line.startswith("export ") for line in done.stdout.splitlines())


def test_the_command_line_of_the_server_has_no_token(start: Start) -> None:
    info = start()
    server = psutil.Process(info.pid)
    assert info.token_secret not in str([server.cmdline(), server.environ()])


def test_nothing_is_signalled_because_a_file_names_it(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_STOP_LIMIT", 0.1)
    folder = StateDir(state)
    folder.create()
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with folder.server_lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(bystander.pid))
        lock.flush()
        # Such as on another machine that shares the folder.
        with pytest.raises(InternalError, match="does not end"):
            launcher.stop(state)
    assert bystander.poll() is None
    bystander.communicate(b"\n")
    assert bystander.returncode == 0


def test_a_server_that_hangs_is_killed(
    start: Start, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_STOP_LIMIT", 0.5)
    monkeypatch.setattr(launcher, "ask", functools.partial(launcher.ask, limit=0.1))
    info = start()
    os.kill(info.pid, signal.SIGSTOP)
    assert launcher.stop(state) is True


def test_the_peer_of_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        client.connect(str(tmp_path / "s"))
        assert peers.is_own(client)
        assert peers.pid_of(client) == os.getpid()
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert not peers.is_own(client)


def test_a_foreign_process_in_the_place_of_the_server(
    start: Start, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    monkeypatch.setattr(peers, "is_own", lambda _: False)
    assert launcher.running(state) is None
    monkeypatch.undo()
    assert launcher.running(state) is not None


@pytest.mark.parametrize("fault", ["folder", "peer"])
def test_a_nursery_of_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    place = tmp_path / "folder"
    place.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "socket"))
        listener.listen()
        listener.settimeout(PATIENCE)
        env = {"MODALRUN_LOCAL_ROOT": "/x", "SECRET": "secret"}

        def join() -> socket.socket | None:
            return shared_nursery.join(str(place / "socket"), ["{}"], env, (0, 1, 2))

        channel = join()
        assert channel is not None
        channel.close()
        heard, _ = listener.accept()
        assert b"secret" in heard.recv(65536) + heard.recv(65536)
        heard.close()

        if fault == "folder":
            place.chmod(0o755)
        else:
            monkeypatch.setattr(peers, "is_own", lambda _: False)
        assert join() is None
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            heard, _ = listener.accept()
            assert heard.recv(1) == b""
            heard.close()


SEND = """
import asyncio, sys
from grpclib.client import Channel
from modal_proto.api_grpc import ModalClientStub
from modal_proto.api_pb2 import MountPutFileRequest
from modal_proto.task_command_router_grpc import TaskCommandRouterStub
from modal_proto.task_command_router_pb2 import SandboxStdinWriteV2Request

async def main(port, size):
    data = b"x" * int(size)
    for stub, call, request in (
        (ModalClientStub, "MountPutFile", MountPutFileRequest(data=data)),
        (TaskCommandRouterStub, "SandboxStdinWriteV2", SandboxStdinWriteV2Request(data=data)),
    ):
        channel = Channel("127.0.0.1", int(port))
        for metadata in ({}, {"authorization": "Bearer a.b.c", "x-modal-token-secret": "as-"}):
            try:
                await asyncio.wait_for(getattr(stub(channel), call)(request, metadata=metadata), 20)
                print("accepted")
            except asyncio.TimeoutError:
                print("read")
            except Exception as error:
                print("refused")
        channel.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_call_without_a_token_is_not_read(sdk: Sdk) -> None:
    sdk.app()
    server = psutil.Process(sdk.info.pid)
    size, before = 64 * 1024 * 1024, server.memory_info().rss
    highest = before
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.is_set():
            highest = max(highest, server.memory_info().rss)
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        said = sdk.script(SEND, sdk.info.url.rpartition(":")[2], str(size))
    finally:
        done.set()
        watcher.join()
    assert said.split() == ["refused"] * 4
    assert highest - before < size / 4


@settings(deadline=None)
@given(st.text())
def test_no_text_is_a_token(text: str) -> None:
    guard = Guard()
    assert guard.signed_subject(text) is None
    assert not guard.allows_token({"x-modal-token-id": text, "x-modal-token-secret": text})
