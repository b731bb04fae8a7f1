"""The life of a sandbox, on both backends, through the real SDK."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import modal
import pytest
from modal.exception import AlreadyExistsError, NotFoundError
from modal_proto.api_pb2 import GenericResult

from modalrun.localmodal import launcher
from modalrun.localmodal.server_info import ServerInfo

from .support import (
    PATIENCE,
    START_DAEMON,
    Sdk,
    kill_server,
    processes_in,
    processes_of,
    wait_until_gone,
)

Backend = dict[str, Any]
BOTH = ("T4", None)


def test_output_and_exit_code(sdk: Sdk, backend: Backend) -> None:
    sandbox = sdk.create("sh", "-c", "echo out; echo err >&2; exit 3", **backend)
    assert sandbox.stdout.read() == "out\n"
    assert sandbox.stderr.read() == "err\n"
    sandbox.wait()
    assert sandbox.returncode == 3
    success = sdk.create("true", **backend)
    success.wait()
    assert success.returncode == success.poll() == 0


def test_a_line_comes_while_the_sandbox_runs(sdk: Sdk, backend: Backend) -> None:
    sandbox = sdk.create("sh", "-c", "echo first; read line; echo got $line", **backend)
    lines = iter(sandbox.stdout)
    assert next(lines) == "first\n"
    assert sandbox.poll() is None
    sandbox.stdin.write("hello\n")
    sandbox.stdin.drain()
    assert next(lines) == "got hello\n"
    assert list(lines) == []


def test_end_of_input(sdk: Sdk) -> None:
    for gpu in BOTH:
        sandbox = sdk.create("wc", "-c", gpu=gpu)
        sandbox.stdin.write(b"x" * 300_000)
        sandbox.stdin.write_eof()
        sandbox.stdin.drain()
        assert sandbox.stdout.read().strip() == "300000"


def test_timeout_and_terminate(sdk: Sdk) -> None:
    late = [sdk.create("sleep", "1000", timeout=1, gpu=gpu) for gpu in BOTH]
    for gpu in BOTH:
        sandbox = sdk.create("sleep", "1000", gpu=gpu)
        sandbox.terminate()
        with pytest.raises(modal.exception.SandboxTerminatedError):
            sandbox.wait()
        assert sandbox.returncode == 137
        sandbox.terminate()
    for sandbox in late:
        with pytest.raises(modal.exception.SandboxTimeoutError):
            sandbox.wait()
        assert sandbox.returncode == 124


def test_other_ends(sdk: Sdk) -> None:
    volume = modal.Volume.from_name("data", create_if_missing=True, client=sdk.client)
    for gpu in BOTH:
        missing = sdk.create("no-such-command", gpu=gpu)
        missing.wait()
        assert missing.returncode == 127
        assert missing.stderr.read() == "no-such-command: No such file or directory\n"
        nowhere = sdk.create("true", workdir="/data/x", volumes={"/data": volume}, gpu=gpu)
        nowhere.wait()
        assert nowhere.returncode == 127
        text = "The working folder /data/x: No such file or directory\n"
        assert nowhere.stderr.read().endswith(text)
        forbidden = sdk.create("/usr", gpu=gpu)
        forbidden.wait()
        assert forbidden.returncode == 126
        shot = sdk.create("sh", "-c", "kill -9 $$", gpu=gpu)
        shot.wait()
        assert shot.returncode == 137
        impossible = sdk.create("echo", "a\0b", gpu=gpu)
        impossible.wait()
        assert impossible.returncode == 1
        assert sdk.record(impossible).status == GenericResult.GENERIC_STATUS_INIT_FAILURE


@pytest.mark.parametrize("end", ["itself", "terminate", "timeout"])
def test_nothing_survives(sdk: Sdk, backend: Backend, end: str) -> None:
    tail = "" if end == "itself" else "time.sleep(1000)"
    timeout = 2 if end == "timeout" else PATIENCE
    code = f"{START_DAEMON}print(os.read(reader, 20).decode(), flush=True)\n{tail}"
    sandbox = sdk.create("python", "-c", code, timeout=timeout, **backend)
    assert int(next(iter(sandbox.stdout)))
    if end == "terminate":
        sandbox.terminate()
    try:
        sandbox.wait(raise_on_termination=False)
    except modal.exception.SandboxTimeoutError:
        assert end == "timeout"
    assert processes_in(sandbox) == {}


def test_a_keeper_that_is_killed(sdk: Sdk) -> None:
    sandbox = sdk.create("sh", "-c", "echo started; read line")
    assert next(iter(sandbox.stdout)) == "started\n"
    # The fork that becomes `sleep` is called `sh` for a moment.
    shells = {p.pid: p for p in processes_of(sdk.info.state_dir) if p.name() == "sh"}
    (shell,) = [p for p in shells.values() if p.ppid() not in shells]
    shell.parent().kill()
    sandbox.wait()
    assert sandbox.returncode == 137
    assert sdk.record(sandbox).status == GenericResult.GENERIC_STATUS_INTERNAL_FAILURE
    wait_until_gone(shell.pid)


TAKES_SIGNALS = """
import os, signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda n, _: os.write(1, f"{sys.argv[1]} {n}\\n".encode()))
print(sys.argv[1], "ready", flush=True)
while True:
    time.sleep(100)
"""


def test_the_init_forwards_signals_to_the_process_group(sdk: Sdk, backend: Backend) -> None:
    """As `dumb-init`, PID 1 of a V1 sandbox; another session gets none."""
    started = 'python -c "$0" same & setsid python -c "$0" other & exec python -c "$0" main'
    sandbox = sdk.create("sh", "-c", started, TAKES_SIGNALS, **backend)
    lines = iter(sandbox.stdout)
    assert {next(lines) for _ in range(3)} == {
        f"{who} ready\n" for who in ("main", "same", "other")
    }
    processes = [p for p in processes_of(sdk.info.state_dir) if p.cmdline()[-1] == "main"]
    (init,) = [process.parent() for process in processes]
    assert init is not None and init.ppid() != os.getpid()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        init.send_signal(number)
        assert {next(lines), next(lines)} == {f"main {number}\n", f"same {number}\n"}
    sandbox.terminate()
    assert list(lines) == [], "terminate sends no signal that can be handled"
    with pytest.raises(modal.exception.SandboxTerminatedError):
        sandbox.wait()


def test_names_are_unique_while_the_sandbox_runs(sdk: Sdk, backend: Backend) -> None:
    first = sdk.create("sleep", "1000", name="one", **backend)
    with pytest.raises(AlreadyExistsError):
        sdk.create("true", name="one", **backend)
    other = sdk.create("true", name="one", app=sdk.app("another"), **backend)
    other.wait()
    first.terminate(wait=True)
    again = sdk.create("true", name="one", **backend)
    again.wait()


def test_list_and_tags(sdk: Sdk, backend: Backend) -> None:
    app = sdk.app()
    sandboxes = [
        sdk.create("sleep", "1000", app=app, tags={"run": "r1", "step": str(n)}, **backend)
        for n in range(3)
    ]
    finished = sdk.create("true", app=app, tags={"run": "r1"}, **backend)
    finished.wait()

    def listed(**tags: str) -> list[str]:
        found = modal.Sandbox.list(app_id=app.app_id, tags=tags, client=sdk.client)
        return [sandbox.object_id for sandbox in found]

    ids = [sandbox.object_id for sandbox in sandboxes]
    assert listed(run="r1") == ids[::-1]
    assert listed(run="r1", step="1") == [ids[1]]
    assert listed(run="r2") == []
    sandboxes[0].set_tags({"run": "r2"})
    assert sandboxes[0].get_tags() == {"run": "r2"}
    assert listed(run="r2") == [ids[0]]


def test_more_sandboxes_than_a_page(sdk: Sdk) -> None:
    app = sdk.app()
    with ThreadPoolExecutor(8) as pool:
        created = list(
            pool.map(lambda _: sdk.create("sleep", "1000", app=app).object_id, range(110))
        )
    found = [s.object_id for s in modal.Sandbox.list(app_id=app.app_id, client=sdk.client)]
    assert sorted(found) == sorted(created)


def test_another_process_finds_it(sdk: Sdk) -> None:
    sandboxes = [
        sdk.create("sh", "-c", "echo hello; read line; exit 5", name=f"on-{gpu}", gpu=gpu)
        for gpu in BOTH
    ]
    ids = [sandbox.object_id for sandbox in sandboxes]
    code = """
import sys, modal
for gpu, sandbox_id in zip(("T4", None), sys.argv[1:]):
    named = modal.Sandbox.from_name("tests", f"on-{gpu}")
    sandbox = modal.Sandbox.from_id(sandbox_id)
    assert named.object_id == sandbox_id and sandbox.poll() is None
    print(next(iter(sandbox.stdout)), end="")
"""
    assert sdk.script(code, *ids) == "hello\n" * 2
    for sandbox in sandboxes:
        sandbox.stdin.write("\n")
        sandbox.stdin.drain()
        sandbox.wait()
    after = """
import sys, modal
for sandbox_id in sys.argv[1:]:
    sandbox = modal.Sandbox.from_id(sandbox_id)
    print(sandbox.returncode, sandbox.stdout.read(), end="")
"""
    assert sdk.script(after, *ids) == "5 hello\n" * 2
    for gpu in BOTH:
        with pytest.raises(NotFoundError):
            modal.Sandbox.from_name("tests", f"on-{gpu}", client=sdk.client)


def test_a_finished_sandbox_by_name(sdk: Sdk) -> None:
    sandbox = sdk.create("true", name="past")
    sandbox.wait()
    found = modal.Sandbox.from_name("tests", "past", include_terminated=True, client=sdk.client)
    assert found.object_id == sandbox.object_id
    assert found.returncode == 0


def test_what_was_requested_is_shown(sdk: Sdk) -> None:
    sandbox = sdk.create(
        "sleep", "1000", gpu="A100-80GB:2", cpu=(1.5, 4), memory=(512, 1024), region="eu",
        cloud="aws", name="big",
    )  # fmt: skip
    status = launcher.status(sdk.info.state_dir)
    assert status is not None
    (shown,) = status["running"]
    assert shown["id"] == sandbox.object_id
    assert shown["requested"] == {
        "cpu": 1.5,
        "cpu_limit": 4.0,
        "memory_mib": 512,
        "memory_limit_mib": 1024,
        "gpu": "A100-80GB:2",
        "cloud": "aws",
        "regions": ["eu"],
        "volumes": {},
    }


def test_a_hundred_stream_at_once(
    start: Callable[..., ServerInfo],
    connect: Callable[[ServerInfo], Sdk],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """All hundred are seen to write, on both streams, before any of them can end."""
    monkeypatch.setenv("MODALRUN_LOCAL_SHARED", str(tmp_path))
    sdk = connect(start())
    gate = tmp_path / "gate"
    app, image = sdk.app(), modal.Image.debian_slim()
    handle = os.open(gate, os.O_CREAT | os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)

    def make(number: int) -> modal.Sandbox:
        script = f"echo out {number}; echo err {number} >&2; flock -s {gate} echo end {number}"
        gpu = "T4" if number % 2 else None
        return sdk.create("sh", "-c", script, app=app, image=image, gpu=gpu, timeout=120)

    with ThreadPoolExecutor(100) as pool:
        sandboxes = list(pool.map(make, range(100)))
        outs = [iter(sandbox.stdout) for sandbox in sandboxes]
        errs = [iter(sandbox.stderr) for sandbox in sandboxes]
        assert list(pool.map(next, outs)) == [f"out {n}\n" for n in range(100)]
        assert list(pool.map(next, errs)) == [f"err {n}\n" for n in range(100)]
        os.close(handle)
        assert list(pool.map(list, outs)) == [[f"end {n}\n"] for n in range(100)]
        assert list(pool.map(lambda s: s.wait(), sandboxes)) == [None] * 100
        assert {sandbox.returncode for sandbox in sandboxes} == {0}


def test_ephemeral_app(sdk: Sdk) -> None:
    with modal.App("ephemeral").run(client=sdk.client) as app:
        sandbox = sdk.create("sleep", "1000", app=app)
    sandbox.wait(raise_on_termination=False)
    assert sandbox.returncode == 137


SHORT = """
import asyncio, multiprocessing, os, socket, sys, tempfile
from concurrent.futures import ProcessPoolExecutor

def double(number):
    return 2 * number

if __name__ == "__main__":
    with multiprocessing.Manager() as manager:
        assert manager.list([1])[0] == 1
    for method in ("spawn", "forkserver", "fork"):
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            assert list(pool.map(double, [1])) == [2], method
    name = os.path.join(tempfile.mkdtemp(), "x" * 40)
    socket.socket(socket.AF_UNIX).bind(name)
    print(tempfile.gettempdir(), oct(os.stat(tempfile.gettempdir()).st_mode), flush=True)
    input()
"""


@pytest.mark.parametrize("length", [20, 200])
def test_temporary_folders_are_short_and_their_own(
    tmp_path: Path,
    connect: Callable[[ServerInfo], Sdk],
    monkeypatch: pytest.MonkeyPatch,
    length: int,
) -> None:
    long = tmp_path / ("long" * (length // 4))
    long.mkdir()
    for name in ("HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(long))
    # An isolated one has /tmp.
    monkeypatch.setenv("MODALRUN_LOCAL_UNISOLATED", "1")
    state = long / "state"
    sdk = connect(launcher.ensure_running(state))
    try:
        script = long / "script.py"
        script.write_text(SHORT)
        both = [sdk.create("python", str(script)) for _ in range(2)]
        answers = [next(iter(sandbox.stdout)).split() for sandbox in both]
        assert {mode for _, mode in answers} == {"0o40700"}
        folders = [Path(folder) for folder, _ in answers]
        assert len(set(folders)) == 2
        assert all(len(str(folder)) < 50 for folder in folders)
        # What an image puts into /tmp is there.
        put = modal.Image.debian_slim().add_local_file(script, "/tmp/script.py")
        assert sdk.create("cat", "/tmp/script.py", image=put).stdout.read() == SHORT
        both[0].stdin.write("\n")
        both[0].stdin.write_eof()
        both[0].stdin.drain()
        both[0].wait()
        assert both[0].returncode == 0, both[0].stderr.read()
        # The next server removes what a killed one has left.
        kill_server(sdk.info)
        assert folders[1].exists()
        launcher.ensure_running(state)
        assert launcher.stop(state)
        assert not any(folder.exists() for folder in folders)
    finally:
        launcher.stop(state)
