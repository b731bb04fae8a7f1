"""Give a test its own home, ZenML configuration, local Modal server and project folder.

All of them are below one temporary folder. A process that still mentions the folder after the test
was left running by it.
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from uuid import UUID

import folders
import forking
import pytest
import shared_nursery
from commands import DEADLINE, Command, Gate, Result, Stream
from forking import Forge, Forked
from servers import workspace
from servers.records import ServerRecords, SQLiteRecords, sqlite_rows
from servers.together import Servers

from modalrun.localmodal import launcher

PIPELINES = Path(__file__).parent / "e2e" / "pipelines"
FINISHED = {"completed", "cached", "failed", "stopped", "skipped", "retried"}
"""ZenML's statuses of finished steps and runs."""

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """One attempt at a step in ZenML's database."""

    name: str
    status: str
    version: int
    start: str
    end: str | None
    exception: str


@dataclass(frozen=True)
class Run:
    """A run in ZenML's database, with its step attempts in order of creation."""

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
    """The isolated surroundings of one test.

    Args:
        root: Its folder.
        zenml_template: The initial ZenML configuration; None for an empty one.
        nursery: The socket of the process that has ZenML in memory, for the local Modal server.
        forge: Starts commands with ZenML in memory; None to start them cold.
        place: The workspace on a ZenML server; None for a local SQLite store.
        servers: The servers of `place`.

    Attributes:
        serves_ahead: Whether the local Modal server may run before a submission starts it.
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
        self.environment = clean_environment() | {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "ZENML_CONFIG_PATH": str(self.zenml_config),
            "MODALRUN_LOCAL_STATE": str(self.state),
            # Steps meet the test there, as a run on Modal's cloud does elsewhere.
            "MODALRUN_LOCAL_SHARED": str(self.root),
            shared_nursery.VARIABLE: str(nursery),
        }
        if place is not None:
            self.environment |= place.environment()
        self.serves_ahead = True
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
        """Start `modalrun submit` outside the project folder.

        Args:
            spec: The run spec, as text or as a file.
            arguments: More arguments.
            cwd: The folder to start it in instead.
            terminal: Whether it has a terminal instead of pipes.
            environment: More environment variables.
        """
        if isinstance(spec, str):
            spec = self.spec(spec)
        self._serve_ahead(Path(spec), environment)
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
        """Run Python code with this world's ZenML; return the value of its `result`."""
        script, answer = self.root / "ask_zenml.py", self.root / "answer.json"
        ending = "import json, sys\njson.dump(result, open(sys.argv[1], 'w'), default=str)"
        script.write_text(f"{code}\n{ending}\n")
        command = [sys.executable, "-m", script.stem, str(answer)]
        done = self.start(command, cwd=script.parent).finish()
        assert done.exit_code == 0, done.stderr
        return json.loads(answer.read_text())

    def modalrun(self, *arguments: str, **environment: str) -> Command:
        """Start a modalrun command with another home, as from another machine."""
        home = self.root / "another-home"
        home.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "modalrun", *arguments]
        return self.start(command, **{"HOME": str(home), **environment})

    def modal(self, *arguments: str) -> Result:
        """Run the real `modal` CLI against this world's server."""
        command = [sys.executable, "-m", "modal", *arguments]
        return self.start(command, **self.server()).finish()

    def server(self) -> dict[str, str]:
        """Start this world's server if needed; return the variables that point to it."""
        forking.serve(self.forge, self.state, self.environment, idle_timeout=0)
        if launcher.running(self.state) is None:
            done = self.start([sys.executable, "-m", "modalrun", "local", "start"]).finish()
            assert done.exit_code == 0, done.stderr
        info = launcher.running(self.state)
        assert info is not None
        return info.environ()

    @property
    def stack(self) -> str:
        """The name of the default stack of runs."""
        return "default" if self.place is None else self.place.name

    @property
    def user(self) -> str:
        """The name of the world's ZenML user."""
        return "default" if self.place is None else self.place.name

    @property
    def project_name(self) -> str:
        """The name of the runs' ZenML project."""
        return "default" if self.place is None else self.place.name

    @property
    def records(self) -> SQLiteRecords | ServerRecords:
        """ZenML's database, local or on a server."""
        if self.place is None or self.servers is None:
            return SQLiteRecords(self.zenml_config / "local_stores/default_zen_store/zenml.db")
        return ServerRecords(self.servers.backend, self.place.project)

    def runs(self) -> list[Run]:
        """Return the runs in ZenML, oldest first."""
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
        """Return the only run in ZenML."""
        (run,) = self.runs()
        return run

    def sandboxes(self) -> list[Any]:
        """Return the sandbox records of this world's server, oldest first."""
        rows = self._server("SELECT document FROM sandboxes ORDER BY created_at")
        return [SimpleNamespace(**json.loads(document)) for (document,) in rows]

    def log_files(self) -> list[Path]:
        """Return the server's log files of sandboxes."""
        return [path for path in (self.state / "logs").rglob("*") if path.is_file()]

    def apps(self) -> list[str]:
        """Return the names of the server's apps."""
        rows = self._server("SELECT name FROM objects WHERE kind = 'app' ORDER BY created_at")
        return [name for (name,) in rows]

    def gate(self, name: str = "gate") -> Gate:
        """Create a gate at which a step can wait."""
        return Gate(self.root / name)

    def wait_until(self, true: Callable[[], T], what: str, seconds: float = DEADLINE) -> T:
        """Poll until `true()` is true; fail when the deadline passes."""
        deadline = time.monotonic() + seconds
        while True:
            value = true()
            if value:
                return value
            assert time.monotonic() < deadline, f"{seconds:g} s passed, and not: {what}"
            time.sleep(0.02)

    def processes(self) -> dict[int, str]:
        """Return the running processes of this world: pid -> command line."""
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
        """Stop all processes of the test; fail if the server or a sandbox does not end."""
        for command in self._commands:
            if command.process.poll() is None:
                command.process.kill()
                command.process.wait()
        launcher.stop(self.state)
        folders.remove_sandboxes(self.state)
        try:
            self.wait_until(lambda: not self.processes(), "every process of the test ended", 10)
        except AssertionError:
            left = self.processes()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            pytest.fail(f"left running: {left}")

    def _serve_ahead(self, spec: Path, environment: dict[str, str]) -> None:
        """Start the server that a submission is about to start, with less work."""
        env = self.environment | environment
        if not self.serves_ahead or Path(env["MODALRUN_LOCAL_STATE"]) != self.state:
            return
        if spec.is_file() and b"target: local" in spec.read_bytes():
            forking.serve(self.forge, self.state, env, idle_timeout=0)

    def _server(self, query: str) -> list[Any]:
        database = self.state / "state.sqlite3"
        if not database.exists():
            return []
        try:
            return sqlite_rows(database, query)
        except sqlite3.OperationalError as error:
            # The server was stopped while it started.
            if "no such table" not in str(error):
                raise
            return []


def clean_environment() -> dict[str, str]:
    """Return the environment without the host's accounts and settings."""
    names = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    programs = str(Path(sys.executable).parent)
    kept["PATH"] = os.pathsep.join([programs, kept.get("PATH", os.defpath)])
    return kept | {"ZENML_ANALYTICS_OPT_IN": "false", "MODALRUN_LOCAL_IDLE_TIMEOUT": "0"}


def copy_zenml(template: Path, destination: Path) -> None:
    """Copy the ZenML configuration folder of `zenml_template`."""
    shutil.copytree(template, destination)
    config = destination / "config.yaml"
    config.write_text(config.read_text().replace(str(template), str(destination)))
