"""A nursery or a keeper that is stopped stops nothing else, and edited modules are loaded again."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import modal
import psutil
import pytest

from modalrun.localmodal import launcher
from modalrun.localmodal.launcher import Preload
from modalrun.localmodal.sandbox import keeper

from .support import Sdk, gone, kill_server, processes_in, processes_of

PRELOAD = Preload(modules=("colorsys",), programs=("calendar",))


def nurseries(sdk: Sdk, program: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process(sdk.info.pid).children()
        if any(argument.endswith(program) for argument in process.cmdline())
    ]


@pytest.mark.parametrize("program", ["keeper.py", "warm.py"])
def test_a_stopped_nursery(sdk: Sdk, program: str) -> None:
    command = ["sh", "-c", "echo hello; sleep 1000"]
    wanted = "hello\n"
    if program == "warm.py":
        launcher.preload(sdk.info, PRELOAD)
        command, wanted = ["python", "-m", "calendar", "2026", "1"], "    January 2026\n"
        assert next(iter(sdk.create(*command).stdout)) == wanted
    earlier = sdk.create("sh", "-c", "echo runs; sleep 1000")
    assert next(iter(earlier.stdout)) == "runs\n"
    (stopped,) = nurseries(sdk, program)
    stopped.suspend()
    # More than a socket takes that nobody reads.
    large = {f"LARGE_{number}": "x" * 30_000 for number in range(10)}
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(sdk.create, *command, env=large) for _ in range(3)]
        earlier.terminate()
        earlier.wait(raise_on_termination=False)
        for created in waiting:
            assert next(iter(created.result().stdout)) == wanted
    assert gone(stopped.pid)


def test_terminating_what_a_stopped_nursery_has_not_started(sdk: Sdk) -> None:
    (stopped,) = nurseries(sdk, "keeper.py")
    stopped.suspend()
    sandbox = sdk.create("sleep", "1000")
    sandbox.terminate()
    sandbox.wait(raise_on_termination=False)
    assert sandbox.returncode == 137
    # The next one starts, and the server ends, with a stopped nursery.
    assert sdk.create("echo", "hello").stdout.read() == "hello\n"
    (stopped,) = nurseries(sdk, "keeper.py")
    stopped.suspend()
    assert launcher.stop(sdk.info.state_dir)
    assert gone(stopped.pid)


def test_a_stopped_nursery_ends_with_a_killed_server(sdk: Sdk) -> None:
    sdk.create("true").wait()
    (stopped,) = nurseries(sdk, "keeper.py")
    stopped.suspend()
    kill_server(sdk.info)
    assert gone(stopped.pid)


def test_a_stopped_keeper(sdk: Sdk, backend: dict[str, str]) -> None:
    sandbox = sdk.create("sh", "-c", "echo $$; exec sleep 1000", **backend)
    pid = int(next(iter(sandbox.stdout)))
    process = processes_in(sandbox)[pid]
    assert os.getsid(process.ppid()) == process.ppid()
    process.parent().suspend()
    process.suspend()
    sandbox.terminate()
    with pytest.raises(modal.exception.SandboxTerminatedError):
        sandbox.wait()
    assert gone(process.pid)
    left = [p.cmdline() for p in processes_of(sdk.info.state_dir)]
    assert sandbox.object_id not in str(left)


def test_a_keeper_whose_nursery_was_killed_leaves_the_start_to_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def own_user(_nursery: socket.socket) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(os, "setsid", lambda: None)
    server, theirs = socket.socketpair()
    nursery = socket.socketpair()[0]
    namespaces = SimpleNamespace(own_user=own_user)

    keeper.keep(keeper.ISOLATED, [theirs.fileno()], keeper.execute, namespaces, nursery)

    theirs.close()
    # With an answer the sandbox would have failed.
    assert server.recv(100) == b""


def test_a_program_in_memory_that_is_edited(sdk: Sdk, tmp_path: Path) -> None:
    source = tmp_path / "source"
    folder = source / "edited"
    folder.mkdir(parents=True)
    (folder / "program.py").write_text(
        "import sys\n"
        "from edited import text\n"
        "if __name__ == '__main__':\n"
        "    print(text.TEXT, 'colorsys' in sys.modules)\n"
    )
    env = {"PYTHONPATH": str(source)}
    launcher.preload(sdk.info, Preload(("colorsys", "edited.program"), ("edited",), env))

    def printed(text: str) -> tuple[str, str]:
        (folder / "text.py").write_text(f"TEXT = {text!r}")
        image = modal.Image.debian_slim().add_local_dir(source, str(source))
        sandbox = sdk.create("python", "-m", "edited.program", image=image, env=env)
        sandbox.wait()
        return sandbox.stdout.read(), sandbox.stderr.read()

    assert printed("old") == ("old True\n", "")
    # Another length: Python tells files of one second apart by it.
    assert printed("newer") == ("newer True\n", "")
