"""Run graphs of trivial steps on a local Modal server of their own: the base of `per_step.py` and
`peer.py`.

Graphs: chain-N, fan-N (N steps between a first and a last one), random-N (the same each time; a
step waits for up to three of the twenty before it).

A place is a temporary folder with a separate ZenML configuration and server. The mode "upstream" is
ZenML's own Modal orchestrator on the same server and records (see `upstream.py`). ZenML's records
are in SQLite, or on a ZenML server of the place's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import signal
import site
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tests"))

from servers.zenml_server import Api, Backend, ZenMLServer  # noqa: E402

MARK = "a step says"
LIMIT = 600.0
"""Seconds after which a run has ended wrong."""
PIPELINE = f"""
from zenml import pipeline, step

@step(enable_cache=False)
def work(number: int) -> None:
    print("{MARK}", number, flush=True)

@pipeline(enable_cache=False)
def graph(parents: dict[str, list[str]]) -> None:
    for number, (name, after) in enumerate(parents.items()):
        work(number, id=name, after=after)
"""

MAIN = """
import sys, upstream
getattr(upstream, sys.argv[1])(sys.argv[2])
"""


def parents_of(graph: str) -> dict[str, list[str]]:
    """Build a graph by its name: each step and the steps that it waits for."""
    shape, _, size = graph.partition("-")
    names = [f"s{number:03}" for number in range(int(size))]
    match shape:
        case "chain":
            return {name: names[max(0, n - 1) : n] for n, name in enumerate(names)}
        case "fan":
            return {"first": [], **{name: ["first"] for name in names}, "last": names}
        case "random":
            draw = random.Random(4)
            return {
                name: sorted(draw.sample(names[max(0, n - 20) : n], draw.randint(0, min(3, n))))
                for n, name in enumerate(names)
            }
    sys.exit(f"no such graph: {graph}")


def step_of(record: dict[str, Any]) -> str | None:
    """Return the step of a sandbox; None for the shared sandbox."""
    command, option = record["command"], "--step_name"
    if option in command:
        return str(command[command.index(option) + 1])
    return (
        record["tags"]["modalrun-step"] if record["tags"].get("modalrun-role") == "step" else None
    )


def python_in(folder: Path, project: Path) -> str:
    """Create a Python environment for sandboxes: this one's packages, `upstream.py`, a project."""
    venv.create(folder, symlinks=True)
    # Also what the .pth files in there say.
    adding = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
    (packages_of(folder) / "benchmark.pth").write_text(
        "\n".join([*adding, str(HERE), str(project)]), encoding="utf-8"
    )
    return str(folder / "bin" / "python")


def packages_of(folder: Path) -> Path:
    """Return the package folder of a Python environment."""
    (packages,) = folder.glob("lib/python*/site-packages")
    return packages


@dataclass
class Figures:
    """What one run took, in seconds, and whether it ended right.

    Attributes:
        problem: Why it has ended wrong, with the end of its output; None if it has ended right.
    """

    total: float = 0.0
    first_line: float = 0.0
    gaps: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    problem: str | None = None


class Place:
    """A folder with a Python, a ZenML, a local Modal server and a pipeline."""

    def __init__(self, folder: Path, *, cold: bool, zenml_server: bool = False) -> None:
        self.folder = folder
        self.state = folder / "modal"
        self.project = folder / "project"
        self.project.mkdir()
        self.python = python_in(folder / "python", self.project)
        self._has_upstream = False
        (self.project / "graphs.py").write_text(PIPELINE, encoding="utf-8")
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "ZENML_CONFIG_PATH": f"{folder}/zenml",
            "ZENML_ANALYTICS_OPT_IN": "false",
            "MODALRUN_LOCAL_STATE": str(self.state),
            "PYTHONPATH": str(ROOT),
            **({"MODALRUN_LOCAL_PRELOAD": ""} if cold else {}),
        }
        self._zenml_config = folder / "zenml"
        self._zenml: ZenMLServer | None = None
        if zenml_server:
            self._zenml_config = folder / "zenml-server"
            backend = Backend("", str(self._zenml_config), "0" * 64, "password")
            self._zenml = ZenMLServer(folder / "server", backend)
            self._zenml.start()
            api = Api(self._zenml.url, backend.password)
            account = api.post("/service_accounts", {"name": "benchmark", "active": True})
            key = api.post(f"/service_accounts/{account['id']}/api_keys", {"name": "benchmark"})
            self.environment |= {
                "ZENML_STORE_URL": self._zenml.url,
                "ZENML_STORE_API_KEY": key["body"]["key"],
            }
        self.call("-c", "from zenml.client import Client; Client().active_stack_model")
        self.call("-m", "modalrun", "local", "start")

    def call(self, *arguments: str) -> str:
        """Run Python; return its standard output, or end with all of it if it fails."""
        done = subprocess.run(
            [self.python, *arguments],
            env=self.environment,
            cwd=self.project,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            sys.exit(f"{arguments} failed:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def run(self, graph: str, mode: str, boot_delay: float, keep_warm: int = 0) -> Figures:
        """Submit a graph and watch it."""
        parents = parents_of(graph)
        faults = {"rules": [], "boot_delay": boot_delay}
        (self.state / "faults.json").write_text(json.dumps(faults), encoding="utf-8")
        if mode == "upstream":
            command, environment = self._upstream(parents)
        else:
            command, environment = self._ours(parents, mode, keep_warm), self.environment
        begin, before = time.perf_counter(), time.time()
        figures = Figures()
        process = subprocess.Popen(
            [self.python, *command],
            env=environment,
            cwd=self.project,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        timer = threading.Timer(LIMIT, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        lines = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if MARK in line and not figures.first_line:
                figures.first_line = time.perf_counter() - begin
        code = process.wait()
        timer.cancel()
        figures.total = time.perf_counter() - begin
        recorded, expected = self._recorded(before), ("completed", len(parents))
        if code != 0 or recorded != expected:
            logs = sorted(self.state.glob("logs/*/std*"), key=lambda file: file.stat().st_mtime)
            ends = [file.read_text(encoding="utf-8")[-2000:] for file in logs[-2:]]
            what = f"exit code {code}, run and completed steps: {recorded} instead of {expected}"
            figures.problem = "\n".join([f"{graph} in {mode} mode: {what}", *lines, *ends])
        elif not (keep_warm and mode == "per_step"):
            self._add_sandboxes(figures, parents, before)
        return figures

    def _ours(self, parents: dict[str, list[str]], mode: str, keep_warm: int) -> list[str]:
        """Return the arguments of `python` for a run with modalrun."""
        # In `pipeline` mode steps run one after the other, as they do without this setting.
        own = {"max_parallelism": 50, "keep_warm": keep_warm} if mode == "per_step" else {}
        spec = {
            "pipeline": "graphs.graph",
            "target": "local",
            "settings": {"orchestrator": {"mode": mode, "timeout": 3600, **own}},
            "parameters": {"parents": parents},
        }
        path = self.project / "run.yaml"
        # JSON is YAML.
        path.write_text(json.dumps(spec), encoding="utf-8")
        return ["-m", "modalrun", "submit", str(path)]

    def _upstream(self, parents: dict[str, list[str]]) -> tuple[list[str], dict[str, str]]:
        """Return the arguments and environment of `python` for ZenML's orchestrator."""
        graph = self.project / "graph.json"
        if not self._has_upstream:
            # ZenML takes the folder of the main module for that of the code.
            (self.project / "main.py").write_text(MAIN, encoding="utf-8")
            self.call("main.py", "set_up", str(self.folder / "artifacts"))
            self._has_upstream = True
        graph.write_text(json.dumps(parents), encoding="utf-8")
        exports = self.call("-m", "modalrun", "local", "env")
        # Lines of a shell script: export NAME=value.
        pairs = (word.partition("=") for word in shlex.split(exports) if "=" in word)
        variables = {name: value for name, _, value in pairs}
        environment = self.environment | variables
        # Its controller takes a token with it, but not the address of a server.
        url = variables["MODAL_SERVER_URL"]
        (packages_of(self.folder / "python") / "server.pth").write_text(
            f"import os; os.environ.setdefault('MODAL_SERVER_URL', {url!r})", encoding="utf-8"
        )
        stack = {"ZENML_ACTIVE_STACK_ID": self._stack_id()}
        return ["main.py", "run", str(graph)], environment | stack

    def _stack_id(self) -> str:
        ((found,),) = self._query("SELECT id FROM stack WHERE name = 'upstream'")
        return str(UUID(found))

    def _recorded(self, since: float) -> tuple[str, int]:
        """Return the status of the run in ZenML's records, and how many steps are completed."""
        started = datetime.fromtimestamp(since, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
        runs = self._query(
            "SELECT r.status, sum(s.status = 'completed') FROM pipeline_run r"
            " JOIN step_run s ON s.pipeline_run_id = r.id WHERE r.created >= ? GROUP BY r.id",
            started,
        )
        return runs[0] if len(runs) == 1 else (f"{len(runs)} runs", 0)

    def _query(self, query: str, *values: str) -> list[Any]:
        database = self._zenml_config / "local_stores" / "default_zen_store" / "zenml.db"
        with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
            return connection.execute(query, values).fetchall()

    def _add_sandboxes(self, figures: Figures, parents: dict[str, list[str]], since: float) -> None:
        """Read the server's records of the step sandboxes."""
        query = "SELECT document FROM sandboxes WHERE created_at > ?"
        database = self.state / "state.sqlite3"
        with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
            records = [json.loads(text) for (text,) in connection.execute(query, (since,))]
        boxes = {name: record for record in records if (name := step_of(record))}
        for name, box in boxes.items():
            figures.steps.append(box["finished_at"] - box["created_at"])
            if parents[name]:
                ready = max(boxes[parent]["finished_at"] for parent in parents[name])
                figures.gaps.append(box["created_at"] - ready)

    def close(self) -> None:
        """Stop the servers."""
        self.call("-m", "modalrun", "local", "stop")
        if self._zenml:
            self._zenml.stop()


@contextlib.contextmanager
def place(*, cold: bool, zenml_server: bool = False) -> Iterator[Place]:
    """Create a place, and stop its servers at the end."""
    with tempfile.TemporaryDirectory(prefix="modalrun-benchmark-") as folder:
        made = Place(Path(folder), cold=cold, zenml_server=zenml_server)
        try:
            yield made
        finally:
            made.close()
