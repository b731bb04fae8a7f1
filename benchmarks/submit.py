"""Measure a pipeline of four trivial steps against ZenML's `local` orchestrator.

`modalrun submit` uses the local Modal server. Both start from a cold process, without cache.

With `--server` instead: until `modalrun submit --async` says that a run on a ZenML server is
accepted, with ZenML's own client (`--fresh`) and without it, of a run spec that was submitted
before and of a deployment file.

Usage: python benchmarks/submit.py [--server] [repetitions]

Uses a temporary folder with a ZenML configuration and a local Modal server, both prepared before
the clock starts; one more measurement includes the start of the server.
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

SPEC = ROOT / "configs" / "diamond.yaml"
LOCAL_ORCHESTRATOR = (
    "from examples.diamond import diamond; diamond.with_options(enable_cache=False)()"
)


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Return the seconds that a command takes; print its output only if it fails."""
    begin = time.perf_counter()
    result = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begin
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{result.stdout}\n{result.stderr}")
    return seconds


def accepted(ways: dict[str, list[str]], environment: dict[str, str], rounds: int) -> None:
    """Print how long each way to submit takes until the run is accepted, and its CPU time."""
    figures: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, command in ways.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = timed(command, environment)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            figures[way].append((seconds, cpu))
            # The steps would share the machine with the next submission.
            timed([sys.executable, "-m", "modalrun", "stop", "--force", "latest"], environment)
    print(f"seconds until the run is accepted, median (min-max) of {rounds}; CPU time, median")
    for way, found in figures.items():
        cpu = statistics.median(cpu for _, cpu in found)
        print(f"{way:<46}{show([seconds for seconds, _ in found])}   {cpu:.1f}")


def on_a_server(folder: Path, repetitions: int) -> None:
    """Measure submissions on a ZenML server of their own."""
    backend = Backend("", str(folder / "server-config"), "0" * 64, "password")
    server = ZenMLServer(folder / "server", backend)
    server.start()
    try:
        api = Api(server.url, backend.password)
        account = api.post("/service_accounts", {"name": "me", "active": True})
        key = api.post(f"/service_accounts/{account['id']}/api_keys", {"name": "key"})
        environment = {
            **os.environ,
            "HOME": str(folder),
            "ZENML_CONFIG_PATH": str(folder / "zenml"),
            "ZENML_ANALYTICS_OPT_IN": "false",
            "ZENML_STORE_URL": server.url,
            "ZENML_STORE_API_KEY": key["body"]["key"],
            "MODALRUN_LOCAL_STATE": str(folder / "modal"),
            "PYTHONPATH": str(ROOT),
        }
        modalrun = [sys.executable, "-m", "modalrun"]
        file = str(folder / "deployment.json")
        root = ["--source-root", str(ROOT / "examples")]
        spec = folder / "diamond.yaml"
        spec.write_text(
            f"pipeline: diamond.diamond\ntarget: local\nsource_root: {ROOT / 'examples'}\n"
            "enable_cache: false\nsettings: {orchestrator: {synchronous: false}}\n"
        )
        submit = [*modalrun, "submit", str(spec)]
        of_file = [*modalrun, "submit", file, *root, "--target", "local"]
        try:
            timed([*modalrun, "compile", str(spec), "-o", file], environment)
            # The first one registers the pipeline, and starts the local Modal server.
            timed(submit, environment)
            accepted(
                {
                    "run spec, with ZenML's client (--fresh)": [*submit, "--fresh"],
                    "run spec, nothing has changed": submit,
                    "deployment file, with ZenML's client (--fresh)": [*of_file, "--fresh"],
                    "deployment file": of_file,
                },
                environment,
                repetitions,
            )
        finally:
            timed([*modalrun, "local", "stop"], environment)
    finally:
        server.stop()


def main() -> None:
    """Print one line per way to run or submit the pipeline."""
    arguments = [one for one in sys.argv[1:] if one != "--server"]
    repetitions = int(arguments[0]) if arguments else 5
    with tempfile.TemporaryDirectory() as folder:
        if "--server" in sys.argv:
            on_a_server(Path(folder), repetitions)
        else:
            beside_zenml(folder, repetitions)


def beside_zenml(folder: str, repetitions: int) -> None:
    """Measure whole runs beside those of ZenML's `local` orchestrator."""
    script = Path(folder) / "local_orchestrator.py"
    script.write_text(LOCAL_ORCHESTRATOR + "\n", encoding="utf-8")
    environment = {
        **os.environ,
        "HOME": folder,
        "ZENML_CONFIG_PATH": f"{folder}/zenml",
        "ZENML_ANALYTICS_OPT_IN": "false",
        "MODALRUN_LOCAL_STATE": f"{folder}/modal",
        "PYTHONPATH": str(ROOT),
    }
    modalrun = [sys.executable, "-m", "modalrun"]
    timed(
        [sys.executable, "-c", "from zenml.client import Client; Client().zen_store"],
        environment,
    )
    try:
        cold = timed([*modalrun, "submit", str(SPEC)], environment)
        warm = [timed([*modalrun, "submit", str(SPEC)], environment) for _ in range(repetitions)]
        local = [timed([sys.executable, str(script)], environment) for _ in range(repetitions)]
    finally:
        timed([*modalrun, "local", "stop"], environment)
    print(f"four trivial steps, seconds of wall time, median (min-max) of {repetitions}")
    print(f"modalrun submit, local Modal server   {show(warm)}")
    print(f"  the same, server not running yet    {cold:.1f}")
    print(f"ZenML's local orchestrator            {show(local)}")


def show(times: list[float]) -> str:
    """Format the median and the extremes."""
    return f"{statistics.median(times):.1f} ({min(times):.1f}-{max(times):.1f})"


if __name__ == "__main__":
    main()
