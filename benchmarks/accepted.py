"""Measure how long `submit --async` takes on a ZenML server until the run is accepted.

`submit.py --server` calls this. Each way starts from a cold process: with ZenML's own client
(`--fresh`) and without it, of a run spec that was submitted before and of a deployment file.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import sys
from pathlib import Path

from submit import MODALRUN, ROOT, show, timed

sys.path.insert(0, str(ROOT / "tests"))

from servers.zenml_server import Api, Backend, ZenMLServer


def _print(ways: dict[str, list[str]], environment: dict[str, str], rounds: int) -> None:
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
            timed([*MODALRUN, "stop", "--force", "latest"], environment)
    print(f"seconds until the run is accepted, median (min-max) of {rounds}; CPU time, median")
    for way, found in figures.items():
        cpu = statistics.median(cpu for _, cpu in found)
        print(f"{way:<48}{show([seconds for seconds, _ in found])}   {cpu:.1f}")


def measure(folder: Path, repetitions: int) -> None:
    """Measure submissions on a ZenML server of their own."""
    backend = Backend("", str(folder / "server-config"), "0" * 64, "password")
    server = ZenMLServer(folder / "server", backend)
    server.start()
    try:
        api = Api(server.url, backend.password)
        account = api.post("/service_accounts", {"name": "me", "active": True})
        key = api.post(f"/service_accounts/{account['id']}/api_keys", {"name": "key"})
        project = folder / "project"
        shutil.copytree(ROOT / "examples", project)
        environment = {
            **os.environ,
            "PROJECT": str(project),
            "HOME": str(folder),
            "ZENML_CONFIG_PATH": str(folder / "zenml"),
            "ZENML_ANALYTICS_OPT_IN": "false",
            "ZENML_STORE_URL": server.url,
            "ZENML_STORE_API_KEY": key["body"]["key"],
            "MODALRUN_LOCAL_STATE": str(folder / "modal"),
            "PYTHONPATH": str(ROOT),
        }
        file = str(project / "deployment.json")
        spec = project / "diamond.yaml"
        spec.write_text(
            "pipeline: diamond.diamond\ntarget: local\nenable_cache: false\n"
            "settings: {orchestrator: {synchronous: false}}\n"
        )
        submit = [*MODALRUN, "submit", str(spec)]
        of_file = [*MODALRUN, "submit", file]
        try:
            timed([*MODALRUN, "compile", str(spec), "-o", file], environment)
            # The first one registers the pipeline, and starts the local Modal server.
            timed(submit, environment)
            _print(
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
            timed([*MODALRUN, "local", "stop"], environment)
    finally:
        server.stop()
