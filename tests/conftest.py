"""A world of its own for every test that runs modalrun as users do: as a process.

A world has its own home, ZenML configuration, local Modal server and project folder, all below one
temporary folder. Whatever process still mentions that folder after the test was left behind by it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from uuid import UUID

import forking
import pytest
import shared_nursery
from commands import DEADLINE, Command, Result, Stream
from forking import Forge, Forked
from servers import sharing, workspace
from servers.records import ServerRecords, SQLiteRecords, sqlite_rows
from servers.together import Servers

from modalrun.localmodal import launcher
from modalrun.submit.preload import PRELOAD

pytest_plugins = ["servers.option"]

PIPELINES = Path(__file__).parent / "e2e" / "pipelines"
FINISHED = {"completed", "cached", "failed", "stopped", "skipped", "retried"}
"""ZenML's words for steps and runs that are over."""

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """One attempt at a step, as ZenML's database has it."""

    name: str
    status: str
    version: int
    start: str
    end: str | None
    exception: str


@dataclass(frozen=True)
class Run:
    """A run as ZenML's database has it, with its step attempts in the order they were created."""

    id: str
    name: str
    status: str
    reason: str
    stack: str
    steps: list[Step]

    @property
    def statuses(self) -> dict[str, str]:
        """The status of each step's last attempt."""
        return {step.name: step.status for step in self.steps}


class World:
    """What one test has to itself.

    Args:
        root: Its folder.
        zenml_template: The ZenML configuration that it begins with; an empty one without it.
        nursery: Where the local Modal server finds the process that has ZenML in memory.
        forge: What starts commands with ZenML in memory; without it, they are started cold.
        place: Where it is on a ZenML server; it has a local SQLite store without it.
        servers: The servers that `place` is on.
    """

    def __init__(
        self,
        root: Path,
        zenml_template: Path | None,
        nursery: Path,
        forge: Forge | None,
        *,
        place: workspace.Workspace | None = None,
        servers: Servers | None = None,
    ) -> None:
        self.root = root
        self.home = root / "home"
        self.state = root / "state"
        self.zenml_config = root / "zenml-config"
        self.project = root / "project"
        self.elsewhere = root / "elsewhere"
        self.temporary = root / "tmp"
        for folder in (self.home, self.elsewhere, self.temporary):
            folder.mkdir()
        shutil.copytree(PIPELINES, self.project, ignore=shutil.ignore_patterns("__pycache__"))
        if zenml_template is None:
            self.zenml_config.mkdir()
        else:
            copy_zenml(zenml_template, self.zenml_config)
        self.forge = forge
        self.place = place
        self.servers = servers
        self.environment = _clean_environment() | {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "ZENML_CONFIG_PATH": str(self.zenml_config),
            "MODALRUN_LOCAL_STATE": str(self.state),
            shared_nursery.VARIABLE: str(nursery),
        }
        if place is not None:
            self.environment |= place.environment()
        self._commands: list[Command] = []

    def spec(self, text: str, name: str = "run.yaml") -> Path:
        """Write a run spec into the project."""
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def submit(self, spec: str | Path, *arguments: str, **environment: str) -> Result:
        """Run `modalrun submit` to its end."""
        return self.popen(spec, *arguments, **environment).finish()

    def popen(
        self,
        spec: str | Path,
        *arguments: str,
        cwd: Path | None = None,
        terminal: bool = False,
        **environment: str,
    ) -> Command:
        """Start `modalrun submit`, from a folder that has nothing to do with the project.

        Args:
            spec: The run spec, as text or as a file; on the local Modal server if it says nothing.
            arguments: More arguments.
            cwd: Where to start it instead.
            terminal: Whether it has a terminal instead of pipes.
            environment: More environment variables.
        """
        if isinstance(spec, str):
            spec = self.spec(spec)
        command = [sys.executable, "-m", "modalrun", "submit", str(spec), *arguments]
        return self.start(command, cwd=cwd, terminal=terminal, **environment)

    def start(
        self,
        command: list[str],
        *,
        cwd: Path | None = None,
        terminal: bool = False,
        **environment: str,
    ) -> Command:
        """Start any command in this world."""
        if terminal:
            ours, out = pty.openpty()
            fcntl.ioctl(out, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
            (ours_err, err) = (os.dup(ours), out)
            environment.setdefault("TERM", "xterm-256color")
        else:
            (ours, out), (ours_err, err) = os.pipe(), os.pipe()
        env, folder = self.environment | environment, cwd or self.elsewhere
        process: subprocess.Popen[bytes] | Forked
        if terminal:
            process = subprocess.Popen(
                command,
                stdin=out,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=env,
                start_new_session=True,
            )
        else:
            process = forking.start(self.forge, command, env, folder, (out, err))
        for descriptor in {out, err}:
            os.close(descriptor)
        stdout = Stream(ours)
        if terminal:
            os.close(ours_err)
        keyboard = ours if terminal else None
        started = Command(process, stdout, stdout if terminal else Stream(ours_err), keyboard)
        self._commands.append(started)
        return started

    def zenml(self, code: str) -> Any:
        """Run Python code with this world's ZenML; what it assigns to `result` comes back."""
        script, answer = self.root / "ask_zenml.py", self.root / "answer.json"
        ending = "import json, sys\njson.dump(result, open(sys.argv[1], 'w'), default=str)"
        script.write_text(f"{code}\n{ending}\n")
        command = [sys.executable, "-m", script.stem, str(answer)]
        done = self.start(command, cwd=script.parent).finish()
        assert done.exit_code == 0, done.stderr
        return json.loads(answer.read_text())

    def modalrun(self, *arguments: str, **environment: str) -> Command:
        """Start any command of modalrun's, as from another machine: its home is another one."""
        home = self.root / "another-home"
        home.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "modalrun", *arguments]
        return self.start(command, **{"HOME": str(home), **environment})

    def modal(self, *arguments: str) -> Result:
        """Run the real `modal` CLI against this world's server."""
        command = [sys.executable, "-m", "modal", *arguments]
        return self.start(command, **self.server()).finish()

    def server(self) -> dict[str, str]:
        """The variables that lead to this world's server, which is started if need be."""
        if launcher.running(self.state) is None:
            done = self.start([sys.executable, "-m", "modalrun", "local", "start"]).finish()
            assert done.exit_code == 0, done.stderr
        info = launcher.running(self.state)
        assert info is not None
        return info.environ()

    @property
    def stack(self) -> str:
        """The name of the stack that runs use unless they say otherwise."""
        return "default" if self.place is None else self.place.name

    @property
    def user(self) -> str:
        """The name of ZenML's user whose credentials the world has."""
        return "default" if self.place is None else self.place.name

    @property
    def project_name(self) -> str:
        """The name of ZenML's project that runs are in."""
        return "default" if self.place is None else self.place.name

    @property
    def records(self) -> SQLiteRecords | ServerRecords:
        """ZenML's database, wherever it is."""
        if self.place is None or self.servers is None:
            return SQLiteRecords(self.zenml_config / "local_stores/default_zen_store/zenml.db")
        return ServerRecords(self.servers.backend, self.place.project)

    def runs(self) -> list[Run]:
        """The runs in ZenML, oldest first."""
        runs = self.records.rows(
            "SELECT run.id, run.name, run.status, run.status_reason, stack.name"
            " FROM pipeline_run AS run"
            " JOIN pipeline_snapshot ON pipeline_snapshot.id = run.snapshot_id"
            " JOIN stack ON stack.id = pipeline_snapshot.stack_id"
            f" WHERE {self.records.mine('run')} ORDER BY run.created",
        )
        steps = self.records.rows(
            "SELECT pipeline_run_id, name, status, version, start_time, end_time, exception_info"
            f" FROM step_run WHERE {self.records.mine('step_run')}"
            f" ORDER BY {self.records.step_order}",
        )
        return [
            Run(
                id=str(UUID(run_id)),
                name=name,
                status=status,
                reason=reason or "",
                stack=stack,
                steps=[
                    Step(step, state, version, str(start), end and str(end), exception or "")
                    for owner, step, state, version, start, end, exception in steps
                    if owner == run_id
                ],
            )
            for run_id, name, status, reason, stack in runs
        ]

    def only_run(self) -> Run:
        """The one run in ZenML."""
        (run,) = self.runs()
        return run

    def sandboxes(self) -> list[Any]:
        """What this world's server has recorded of sandboxes, oldest first."""
        rows = self._server("SELECT document FROM sandboxes ORDER BY created_at")
        return [SimpleNamespace(**json.loads(document)) for (document,) in rows]

    def log_files(self) -> list[Path]:
        """What the server has kept of the sandboxes' output."""
        return [path for path in (self.state / "logs").rglob("*") if path.is_file()]

    def apps(self) -> list[str]:
        """The names of the server's apps."""
        rows = self._server("SELECT name FROM objects WHERE kind = 'app' ORDER BY created_at")
        return [name for (name,) in rows]

    def gate(self, name: str = "gate") -> Gate:
        """A gate at which a step can be made to wait."""
        return Gate(self.root / name)

    def wait_until(self, true: Callable[[], T], what: str, seconds: float = DEADLINE) -> T:
        """Look again and again until `true()` is; fail when the deadline passes."""
        deadline = time.monotonic() + seconds
        while True:
            value = true()
            if value:
                return value
            assert time.monotonic() < deadline, f"{seconds:g} s passed, and not: {what}"
            time.sleep(0.02)

    def processes(self) -> dict[int, str]:
        """The running processes of this world: pid -> command line."""
        marks = [str(self.root).encode(), *(box.id.encode() for box in self.sandboxes())]
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                everything = command + (folder / "environ").read_bytes()
                if command and any(mark in everything for mark in marks):
                    found[int(folder.name)] = command.replace(b"\0", b" ").decode()
        return found

    def close(self) -> None:
        """End what the test left running, and fail if the server or a sandbox can't be ended."""
        for command in self._commands:
            if command.process.poll() is None:
                command.process.kill()
                command.process.wait()
        launcher.stop(self.state)
        try:
            self.wait_until(lambda: not self.processes(), "every process of the test ended", 10)
        except AssertionError:
            left = self.processes()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            pytest.fail(f"left running: {left}")

    def _server(self, query: str) -> list[Any]:
        database = self.state / "state.sqlite3"
        if not database.exists():
            return []
        try:
            return sqlite_rows(database, query)
        except sqlite3.OperationalError as error:
            # It was ended while it started.
            if "no such table" not in str(error):
                raise
            return []


class Gate:
    """A named pipe: a step that opens it waits until the test opens it too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> None:
        """Let the step go on; waits until it has arrived."""
        with self.path.open("wb"):
            pass


def _clean_environment() -> dict[str, str]:
    """The environment without what could lead to an account of the host, or to its settings."""
    wanted = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
    kept = {name: os.environ[name] for name in wanted if name in os.environ}
    programs = str(Path(sys.executable).parent)
    kept["PATH"] = os.pathsep.join([programs, kept.get("PATH", os.defpath)])
    return kept | {"ZENML_ANALYTICS_OPT_IN": "false", "MODALRUN_LOCAL_IDLE_TIMEOUT": "0"}


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What sandboxes import, imported once for the servers of all tests: twice ZenML's time.

    It is a process of the session, not of a test: each server has its own forked from it.
    """
    path = tmp_path_factory.mktemp("nursery") / "socket"
    if sys.platform != "linux":
        yield path
        return
    program = [sys.executable, shared_nursery.__file__, str(path)]
    process = subprocess.Popen(
        [*program, json.dumps(PRELOAD.to_json())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_clean_environment(),
        start_new_session=True,
    )
    yield path
    # It ends with its input.
    output, _ = process.communicate(timeout=DEADLINE)
    assert (process.returncode, output) == (0, b"")


@pytest.fixture(scope="session")
def forge(request: pytest.FixtureRequest) -> Iterator[Forge | None]:
    """What starts modalrun's commands with ZenML in memory; see `forking`."""
    if sys.platform != "linux" or request.config.getoption("--cold-commands"):
        yield None
        return
    made = Forge(_clean_environment())
    yield made
    made.close()


def copy_zenml(template: Path, destination: Path) -> None:
    """A ZenML configuration folder of one's own, made from `zenml_template`."""
    shutil.copytree(template, destination)
    config = destination / "config.yaml"
    config.write_text(config.read_text().replace(str(template), str(destination)))


@pytest.fixture(scope="session")
def zenml_template(tmp_path_factory: pytest.TempPathFactory, forge: Forge | None) -> Path:
    """A ZenML configuration folder with a fresh SQLite database, made once because it takes 5 s."""
    base = tmp_path_factory.getbasetemp()
    # The workers of pytest-xdist share the folder above.
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "zenml-template"
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "made").exists():
            _make_zenml(root, forge)
            (root / "made").touch()
    return root / "zenml-config"


def _make_zenml(root: Path, forge: Forge | None) -> None:
    root.mkdir()
    environment = _clean_environment() | {
        "HOME": str(root),
        "ZENML_CONFIG_PATH": str(root / "zenml-config"),
    }
    script = root / "ask_zenml.py"
    script.write_text("from zenml.client import Client; Client().active_stack_model")
    command = [sys.executable, "-m", script.stem]
    # Twice: the first use still writes which stack and project are active.
    for _ in range(2):
        with (root / "output").open("w+b") as output:
            file = output.fileno()
            done = forking.start(forge, command, environment, root, (file, file))
            assert done.wait(DEADLINE) == 0, (root / "output").read_text()


@pytest.fixture(scope="session")
def _interruptible() -> None:
    """A shell starts background jobs with Ctrl-C ignored, and children would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Servers:
    """The ZenML server, its database and the S3 store that all tests share."""
    return sharing.acquire(request.config)


@pytest.fixture
def server_world(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    nursery: Path,
    forge: Forge | None,
    servers: Servers,
    _interruptible: None,
) -> Iterator[World]:
    """A world on a real ZenML server: a project, a stack and an API key of its own."""
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
    _interruptible: None,
) -> Iterator[World]:
    """A world with ZenML's local SQLite store."""
    made = World(tmp_path, zenml_template, nursery, forge)
    yield made
    made.close()


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    """A home, a ZenML, a local Modal server and a project for one test; nothing is left running.

    On a real ZenML server with `--zenml-server`, else with a local store.
    """
    if not request.config.getoption("--zenml-server"):
        return cast("World", request.getfixturevalue("local_world"))
    reason = request.node.get_closest_marker("local_store")
    if reason is not None:
        pytest.skip(f"makes no sense on a ZenML server: {reason.args[0]}")
    return cast("World", request.getfixturevalue("server_world"))
