"""Measure `modalrun status`, `list`, `logs` and `stop` on a ZenML server, in both ways.

By requests to the server, as modalrun does it, and by ZenML's own client, as for anything that the
requests can't do. Uses a temporary folder with a ZenML server, an API key and a local Modal server.
`cpu` is the command's own CPU time, which is more reliable than wall time on a shared machine.

Usage: python benchmarks/status.py [repetitions]
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from servers.zenml_server import Api, Backend, ZenMLServer  # noqa: E402

PIPELINES = """
import time
from zenml import pipeline, step

@step
def say() -> None:
    print("a line")

@step
def wait() -> None:
    print("waiting", flush=True)
    time.sleep(3600)

@pipeline(enable_cache=False)
def short() -> None:
    say()

@pipeline(enable_cache=False)
def long() -> None:
    wait()
"""
WAYS = {"requests": {}, "ZenML's client": {"ZENML_CONTAINER": "true"}}
"""The second variable is one with which modalrun leaves everything to ZenML's client."""


def main() -> None:
    """Print each command's median and extremes, in both ways."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    clock: dict[tuple[str, str], list[float]] = {}
    cpu: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="modalrun-benchmark-") as name:
        folder = Path(name)
        server = ZenMLServer(folder / "server", backend_in(folder))
        server.start()
        environment = user_of(server, folder)
        try:
            run = submit(environment, folder, "short")
            call(environment, folder, "logs", run)
            # In turns, so that what else the machine does falls on all of them alike.
            for _ in range(repetitions):
                for way, variables in WAYS.items():
                    running = submit(environment, folder, "long", "--async")
                    wait_for(environment, folder, running)
                    for title, arguments in (
                        ("status, finished run", ("status", run)),
                        ("status, running", ("status", running)),
                        ("list", ("list",)),
                        ("logs, finished run", ("logs", run)),
                        ("logs, running", ("logs", running)),
                        ("stop --no-wait", ("stop", "--no-wait", running)),
                        ("stop --force", ("stop", "--force", running)),
                    ):
                        before, begin = cpu_seconds(), time.perf_counter()
                        call(environment | variables, folder, *arguments)
                        seconds = time.perf_counter() - begin
                        clock.setdefault((title, way), []).append(seconds)
                        cpu.setdefault((title, way), []).append(cpu_seconds() - before)
        finally:
            call(environment, folder, "local", "stop")
            server.stop()
    print(f"{f'seconds, median (min-max) of {repetitions}':38} {'clock':20} cpu")
    for (title, way), seconds in clock.items():
        print(f"{title:22} {way:15} {figures(seconds):20} {figures(cpu[title, way])}")


def backend_in(folder: Path) -> Backend:
    """Describe a ZenML server with an SQLite database below a folder."""
    return Backend("", str(folder / "server" / "zenml"), "x" * 32, "password")


def user_of(server: ZenMLServer, folder: Path) -> dict[str, str]:
    """Create a service account, and return the variables of its user."""
    api = Api(server.url, "password")
    account = api.post("/service_accounts", {"name": "benchmark", "active": True})
    key = api.post(f"/service_accounts/{account['id']}/api_keys", {"name": "benchmark"})
    (folder / "project").mkdir()
    (folder / "project" / "pipelines.py").write_text(PIPELINES, encoding="utf-8")
    (project,) = api.items("/projects")
    (stack,) = api.items("/stacks")
    return {
        **os.environ,
        "HOME": str(folder),
        "ZENML_CONFIG_PATH": f"{folder}/zenml",
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_STORE_URL": server.url,
        "ZENML_STORE_API_KEY": key["body"]["key"],
        "ZENML_ACTIVE_PROJECT_ID": project["id"],
        "ZENML_ACTIVE_STACK_ID": stack["id"],
        "MODALRUN_LOCAL_STATE": f"{folder}/modal",
        "PYTHONPATH": str(ROOT),
    }


def submit(environment: dict[str, str], folder: Path, pipeline: str, *arguments: str) -> str:
    """Submit a pipeline; return the run's id."""
    spec = folder / "project" / f"{pipeline}.yaml"
    spec.write_text(f"pipeline: pipelines.{pipeline}\ntarget: local\n", encoding="utf-8")
    call(environment, folder, "submit", str(spec), *arguments)
    return call(environment, folder, "list", "-n", "1", "--output", "json").split('"id": "')[1][:36]


def wait_for(environment: dict[str, str], folder: Path, run: str) -> None:
    """Wait until the step of a run has said something."""
    while "waiting" not in call(environment, folder, "logs", "--tail", "9", run):
        time.sleep(0.2)


def call(environment: dict[str, str], folder: Path, *arguments: str) -> str:
    """Run a command of modalrun's; return its output, or end with all of it if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "modalrun", *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 and arguments[0] != "logs":
        sys.exit(f"{arguments} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def cpu_seconds() -> float:
    """Return the CPU time of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def figures(times: list[float]) -> str:
    """Format the median and the extremes."""
    return f"{statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})"


if __name__ == "__main__":
    main()
