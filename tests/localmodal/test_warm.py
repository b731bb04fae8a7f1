"""Sandboxes that start with modules in memory: like any other, or not at all."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import modal
import psutil
import pytest
import shared_nursery
from modal_proto.api_pb2 import GenericResult

from modalrun.localmodal import launcher
from modalrun.localmodal.launcher import Preload
from modalrun.localmodal.sandbox.warm import Warm
from modalrun.localmodal.server_info import ServerInfo

from .support import (
    PATIENCE,
    START_DAEMON,
    Sdk,
    gone,
    kill_server,
    processes_in,
    processes_of,
    wait_until_gone,
)

# `colorsys` is what nobody imports by himself; `sqlite3` looks at nothing either.
PRELOAD = Preload(modules=("colorsys",), programs=("probe",), env={"PYTHONUNBUFFERED": "1"})
ENV = {"PYTHONUNBUFFERED": "1", "MARK": "a\nb"}

PROBES = {
    "surroundings": """
import gc, io, json, logging, os, resource, signal, sys, threading
descriptors = {}
for name in sorted(os.listdir("/proc/self/fd"), key=int):
    try:
        descriptors[name] = os.readlink(f"/proc/self/fd/{name}").partition(":")[0]
    except FileNotFoundError:
        pass
def stream(one):
    return [one.name, one.encoding, one.errors, one.line_buffering, one.write_through,
            one.newlines, one.isatty(), one.seekable(), one.fileno()]
found = {
    "name": __name__, "spec": __spec__.name, "main": sys.modules["__main__"].__dict__ is globals(),
    "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "flags": str(sys.flags),
    "executable": sys.executable, "prefix": sys.prefix, "cwd": os.getcwd(), "env": dict(os.environ),
    "libc_env": os.popen("env | grep -v ^_= | sort").read(),
    "descriptors": descriptors, "umask": os.umask(0),
    "session": os.getsid(0) == os.getpgrp() == os.getpid(),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "signals": {n: str(signal.getsignal(n)).partition(" at ")[0] for n in signal.valid_signals()},
    "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "streams": [stream(one) for one in (sys.stdin, sys.stdout, sys.stderr)],
    "input": sys.stdin.read(),
    "threads": [t.name for t in threading.enumerate()], "gc": [gc.isenabled(), gc.get_threshold()],
    "handlers": len(logging.root.handlers), "hook": sys.excepthook is sys.__excepthook__,
    "cmdline": open("/proc/self/cmdline").read().rstrip("\\0"),
}
found["warm"] = "colorsys" in sys.modules
print(json.dumps(found))
""",
    "raises": "def f(): raise ValueError('no')\nf()",
    "leaves": "import sys; sys.exit(3)",
    "says": "import sys; sys.exit('goodbye')",
    "shot": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "interrupted": "import os, signal; os.kill(os.getpid(), signal.SIGINT); signal.pause()",
    "late": (
        "import atexit, threading, time\n"
        "atexit.register(print, 'at exit')\n"
        "threading.Thread(target=lambda: (time.sleep(.2), print('thread'))).start()\n"
        "print('main', end='')"
    ),
    "daemon": f"""
{START_DAEMON}
print("colorsys" in sys.modules, os.getpid(), os.read(reader, 20).decode(), flush=True)
if sys.argv[1:] != ["ends"]:
    time.sleep(1000)
""",
    "waits": "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(1000)",
    "echo": "import sys\nprint(input(), 'colorsys' in sys.modules)",
}


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    folder = tmp_path / "probes"
    (folder / "probe").mkdir(parents=True)
    for name, code in PROBES.items():
        (folder / "probe" / f"{name}.py").write_text(code)
    return folder


@pytest.fixture
def image(probes: Path) -> modal.Image:
    return modal.Image.debian_slim().add_local_dir(probes, "/app")


@pytest.fixture
def run(sdk: Sdk, image: modal.Image) -> Callable[..., modal.Sandbox]:
    """Start one of the probes."""

    def start(probe: str, *arguments: str, **options: Any) -> modal.Sandbox:
        options = {"env": ENV, "workdir": "/app", **options}
        return sdk.create("python", "-m", f"probe.{probe}", *arguments, image=image, **options)

    return start


Run = Callable[..., modal.Sandbox]


def ended(sandbox: modal.Sandbox, text: str | None = None) -> tuple[int | None, str, str]:
    """Return the exit code and output of a sandbox; `text` is its input."""
    if text is not None:
        sandbox.stdin.write(text)
        sandbox.stdin.write_eof()
        sandbox.stdin.drain()
    sandbox.wait()
    return sandbox.returncode, sandbox.stdout.read(), sandbox.stderr.read()


def preloaded(sdk: Sdk) -> dict[str, Any]:
    status = launcher.status(sdk.info.state_dir)
    assert status is not None
    found: dict[str, Any] = status["preload"]
    return found


def nursery_of(sdk: Sdk) -> psutil.Process:
    """The warm nursery: the child of the server that is no keeper's."""
    (found,) = (
        process
        for process in psutil.Process(sdk.info.pid).children()
        if any(argument.endswith("warm.py") for argument in process.cmdline())
    )
    return found


def without_ids(text: str) -> str:
    """Remove the parts of an output that differ between any two sandboxes."""
    return re.sub(r"\b(sb|ta)-\w+", "ID", text)


@pytest.fixture(params=["C.UTF-8", None])
def _locale(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no locale, Python chooses one and sets it in its environment."""
    for name in [name for name in os.environ if name.startswith(("LANG", "LC_"))]:
        monkeypatch.delenv(name)
    if request.param:
        monkeypatch.setenv("LANG", request.param)


@pytest.mark.usefixtures("_locale")
def test_it_behaves_like_a_cold_one(sdk: Sdk, run: Run) -> None:
    endings = {"raises": 1, "leaves": 3, "says": 1, "shot": 143, "late": 0, "missing": 1}
    endings["interrupted"] = 130
    surroundings = ("surroundings", "--flag", "x y")
    assert preloaded(sdk) == {"state": "off"}
    cold = ended(run(*surroundings), "input")
    cold_ends = {name: ended(run(name)) for name in endings}
    launcher.preload(sdk.info, PRELOAD)
    warm = ended(run(*surroundings), "input")
    warm_ends = {name: ended(run(name)) for name in endings}
    assert preloaded(sdk)["state"] == "ready"
    assert {name: code for name, (code, *_) in warm_ends.items()} == endings
    assert without_ids(str(warm_ends)) == without_ids(str(cold_ends))
    assert (warm[0], warm[2]) == (cold[0], cold[2]) == (0, "")
    ours, theirs = (json.loads(without_ids(out)) for out in (warm[1], cold[1]))
    assert (ours.pop("warm"), theirs.pop("warm")) == (True, False)
    assert ours == theirs


def test_what_starts_cold(sdk: Sdk, run: Run) -> None:
    launcher.preload(sdk.info, PRELOAD)

    def is_warm(sandbox: modal.Sandbox) -> bool:
        code, out, err = ended(sandbox, "")
        assert code == 0, err
        found: bool = json.loads(out)["warm"]
        return found

    assert is_warm(run("surroundings", env={**ENV, "PYTHON_LIKE": "1"})) is False
    for other in (
        {**ENV, "PYTHONUNBUFFERED": "0"},
        {**ENV, "PYTHONHASHSEED": "1"},
        {**ENV, "TZ": "Asia/Tokyo"},
        {**ENV, "LC_ALL": "C"},
        {**ENV, "LD_BIND_NOW": "1"},
        {"MARK": "x"},
    ):
        assert is_warm(run("surroundings", env=other)) is False, other
    assert is_warm(run("surroundings"))
    # Another way to run Python.
    echo = "import sys; print('colorsys' in sys.modules)"
    assert ended(sdk.create("python", "-c", echo, env=ENV)) == (0, "False\n", "")


def test_an_environment_that_the_imports_look_at() -> None:
    found = {"COLOURS": None, "MODE": "x"}
    warm = Warm(sys.executable, ("probe",), (), found, {"LC_CTYPE": "C.UTF-8", "MODE": "y"})
    command = [sys.executable, "-m", "probe"]
    assert warm.suits(command, {"MODE": "x", "OTHER": "y"})
    assert not warm.suits(command, {"MODE": "x", "COLOURS": "no"})
    assert not warm.suits(command, {"MODE": "y"})
    assert not warm.suits(command, {})
    # What a warm process passes on to its child.
    assert warm.suits(command, {"MODE": "x", "LC_CTYPE": "C.UTF-8"})
    assert not warm.suits(command, {"MODE": "x", "LC_CTYPE": "C"})


@pytest.mark.parametrize("end", ["itself", "terminate", "timeout", "server killed"])
def test_nothing_survives(sdk: Sdk, run: Run, end: str) -> None:
    launcher.preload(sdk.info, PRELOAD)
    arguments = ["ends"] if end == "itself" else []
    timeout = 3 if end == "timeout" else PATIENCE
    sandbox = run("daemon", *arguments, timeout=timeout)
    is_warm, *_ = next(iter(sandbox.stdout)).split()
    assert is_warm == "True"
    if end == "server killed":
        running = processes_in(sandbox)
        kill_server(sdk.info)
        for process in running.values():
            wait_until_gone(process.pid)
        return
    if end == "terminate":
        sandbox.terminate()
    try:
        sandbox.wait(raise_on_termination=False)
    except modal.exception.SandboxTimeoutError:
        assert end == "timeout"
    assert sandbox.returncode == {"itself": 0, "terminate": 137, "timeout": 124}[end]
    assert processes_in(sandbox) == {}


def test_killed_keepers_and_nurseries(sdk: Sdk, run: Run) -> None:
    launcher.preload(sdk.info, PRELOAD)
    first, second = run("waits"), run("echo")
    pid = int(next(iter(first.stdout)))
    process = processes_in(first)[pid]
    nursery_of(sdk).kill()
    # Keepers do without their nursery, and there is a new one for those that come.
    assert ended(second, "hello\n") == (0, "hello True\n", "")
    third = run("echo")
    assert ended(third, "again\n") == (0, "again True\n", "")
    process.parent().kill()
    first.wait()
    assert sdk.record(first).status == GenericResult.GENERIC_STATUS_INTERNAL_FAILURE
    wait_until_gone(process.pid)


def test_many_at_once(sdk: Sdk, run: Run) -> None:
    launcher.preload(sdk.info, PRELOAD)
    with ThreadPoolExecutor(50) as pool:
        sandboxes = list(pool.map(lambda n: run("echo", gpu="T4" if n % 2 else None), range(50)))
        texts = [f"{number}\n" for number in range(50)]
        assert list(pool.map(ended, sandboxes, texts)) == [
            (0, f"{n} True\n", "") for n in range(50)
        ]


def test_what_cannot_be_preloaded(sdk: Sdk, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(*modules: str) -> tuple[str, str]:
        launcher.preload(sdk.info, replace(PRELOAD, modules=modules))
        sandbox = run("echo")
        assert ended(sandbox, "x\n")[:2] == (0, f"x {preloaded(sdk)['state'] == 'ready'}\n")
        return preloaded(sdk)["state"], str(preloaded(sdk).get("problem"))

    # Modules and functions that exist; a module that doesn't.
    assert outcome("colorsys", "no_such_module", "gc:collect") == ("ready", "None")
    state, problem = outcome("colorsys", "json:no_such_function")
    assert state == "failed" and "no_such_function" in problem
    state, problem = outcome("colorsys", "os:abort")
    assert state == "failed" and "died" in problem
    monkeypatch.setenv(launcher.PRELOAD_VARIABLE, "")
    assert outcome("colorsys") == ("off", "None")
    monkeypatch.setenv(launcher.PRELOAD_VARIABLE, "colorsys, gc:collect")
    assert outcome("ignored") == ("ready", "None")


@pytest.fixture
def site(state: Path) -> Iterator[Path]:
    """A file that can appear where packages are installed."""
    import site

    path = Path(site.getsitepackages()[0]) / f"modalrun-test-{os.getpid()}"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def shared(state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[psutil.Process]:
    """A nursery for the servers that are started from now on."""
    path = state.with_name("shared")
    program = [sys.executable, shared_nursery.__file__, str(path)]
    process = psutil.Popen(
        [*program, json.dumps(PRELOAD.to_json())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    monkeypatch.setenv(shared_nursery.VARIABLE, str(path))
    deadline = time.monotonic() + PATIENCE
    while not listens(path):
        assert time.monotonic() < deadline
    yield process
    for folder in (state, state.with_name("second")):
        launcher.stop(folder)
    # It ends with its input.
    assert process.communicate(timeout=PATIENCE) == (b"", None)


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_servers_share_a_nursery(
    shared: psutil.Process,
    state: Path,
    connect: Callable[[ServerInfo], Sdk],
    probes: Path,
    site: Path,
) -> None:
    found = []
    for folder in (state, state.with_name("second")):
        sdk = connect(launcher.ensure_running(folder))
        image = modal.Image.debian_slim().add_local_dir(probes, "/app")
        options: dict[str, Any] = {"env": ENV, "workdir": "/app", "image": image}
        surroundings = ("python", "-m", "probe.surroundings")
        cold = ended(sdk.create(*surroundings, **options), "")
        launcher.preload(sdk.info, PRELOAD)
        warm = ended(sdk.create(*surroundings, **options), "")
        ours, theirs = (json.loads(without_ids(out)) for _, out, _ in (warm, cold))
        assert (ours.pop("warm"), theirs.pop("warm")) == (True, False)
        assert ours == theirs
        waiting = sdk.create("python", "-m", "probe.waits", **options)
        pid = int(next(iter(waiting.stdout)))
        process = processes_in(waiting)[pid]
        nursery = process.parent().parent()
        assert nursery.parent() == shared
        assert os.getsid(nursery.pid) == nursery.pid
        assert ended(sdk.create("python", "-m", "probe.leaves", **options))[0] == 3
        assert not gone(nursery.pid), "it is a match for what is installed now"
        # It is known as this server's, as one that the server itself starts.
        assert str(folder) in nursery.cmdline()
        assert {process, nursery} <= set(processes_of(folder))
        found.append((sdk, nursery, process))
        # It must be imported again before the second one starts.
        site.touch()

    (first, gone_with_it, its_process), (second, killed, lives_on) = found
    assert launcher.stop(first.info.state_dir)
    assert all(gone(process.pid) for process in (gone_with_it, its_process))
    assert not gone(lives_on.pid)

    # Without the shared nursery, or for other modules, a server starts its own.
    launcher.preload(second.info, replace(PRELOAD, modules=("gc",)))
    assert ended(second.create("python", "-m", "probe.leaves", **options))[0] == 3
    assert nursery_of(second).parent().pid == second.info.pid
    shared.kill()
    shared.wait()
    launcher.preload(second.info, PRELOAD)
    assert ended(second.create("python", "-m", "probe.leaves", **options))[0] == 3
    assert nursery_of(second).parent().pid == second.info.pid
    assert gone(killed.pid)
    assert launcher.stop(second.info.state_dir)
    assert gone(lives_on.pid)


def test_it_is_renewed_when_packages_change(sdk: Sdk, run: Run, site: Path) -> None:
    launcher.preload(sdk.info, PRELOAD)
    assert ended(run("leaves"))[0] == 3
    before = nursery_of(sdk).pid
    assert ended(run("leaves"))[0] == 3
    assert nursery_of(sdk).pid == before
    site.touch()
    assert ended(run("leaves"))[0] == 3
    assert nursery_of(sdk).pid != before
    assert launcher.stop(sdk.info.state_dir)
    assert processes_of(sdk.info.state_dir) == []
