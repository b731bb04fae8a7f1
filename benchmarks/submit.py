"""Measure a pipeline of four trivial steps against ZenML's `local` orchestrator.

`modalrun submit` uses the local Modal server. Both start from a cold process, without cache.

Usage: python benchmarks/submit.py [repetitions] [--latency SECONDS] [--server]

With `--latency`, only `submit --async` is measured, until Modal has accepted the run: at once, and
with a local Modal server that answers each request so many seconds later, as from far away. With
`--server` the same on a ZenML server, with ZenML's own client and without it (`accepted.py`).

Uses a temporary folder with a ZenML configuration and a local Modal server, both prepared before
the clock starts; one more measurement includes the start of the server.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODALRUN = [sys.executable, "-m", "modalrun"]
SUBMIT = [*MODALRUN, "submit", "configs/diamond.yaml"]
LOCAL_ORCHESTRATOR = (
    "from examples.diamond import diamond; diamond.with_options(enable_cache=False)()"
)


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Return the seconds that a command takes in a project; print its output only if it fails."""
    begin = time.perf_counter()
    result = subprocess.run(
        command,
        env=environment,
        cwd=environment["PROJECT"],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begin
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{result.stdout}\n{result.stderr}")
    return seconds


def main() -> None:
    """Print one line per way to run the pipeline."""
    parser = argparse.ArgumentParser()
    parser.add_argument("repetitions", type=int, nargs="?", default=5)
    parser.add_argument("--latency", type=float)
    parser.add_argument("--server", action="store_true")
    options = parser.parse_args()
    repetitions: int = options.repetitions
    with tempfile.TemporaryDirectory() as folder:
        if options.server:
            import accepted

            accepted.measure(Path(folder), repetitions)
            return
        # The repository itself holds modalrun, which no source tree may.
        for name in ("configs", "examples"):
            shutil.copytree(ROOT / name, Path(folder) / "project" / name)
        environment = {
            "PROJECT": f"{folder}/project",
            **os.environ,
            "HOME": folder,
            "ZENML_CONFIG_PATH": f"{folder}/zenml",
            "ZENML_ANALYTICS_OPT_IN": "false",
            "MODALRUN_LOCAL_STATE": f"{folder}/modal",
            "PYTHONPATH": str(ROOT),
        }
        timed(
            [sys.executable, "-c", "from zenml.client import Client; Client().zen_store"],
            environment,
        )
        try:
            if options.latency is None:
                whole_runs(environment, Path(folder), repetitions)
            else:
                submissions(environment, Path(folder), repetitions, options.latency)
        finally:
            timed([*MODALRUN, "local", "stop"], environment)


def whole_runs(environment: dict[str, str], folder: Path, repetitions: int) -> None:
    """Compare runs, from a cold process to their ends."""
    script = folder / "project" / "local_orchestrator.py"
    script.write_text(LOCAL_ORCHESTRATOR + "\n", encoding="utf-8")
    cold = timed(SUBMIT, environment)
    warm = [timed(SUBMIT, environment) for _ in range(repetitions)]
    local = [timed([sys.executable, str(script)], environment) for _ in range(repetitions)]
    print(f"four trivial steps, seconds of wall time, median (min-max) of {repetitions}")
    print(f"modalrun submit, local Modal server   {show(warm)}")
    print(f"  the same, server not running yet    {cold:.1f}")
    print(f"ZenML's local orchestrator            {show(local)}")


def submissions(
    environment: dict[str, str], folder: Path, repetitions: int, latency: float
) -> None:
    """Compare submissions with and without a delay of each answer of Modal's, in turn."""
    submit = [*SUBMIT, "--async"]
    faults = folder / "modal" / "faults.json"
    first = timed(submit, environment)
    near, far = [], []
    for _ in range(repetitions):
        faults.write_text("[]", encoding="utf-8")
        near.append(timed(submit, environment))
        delay = {"rpc": "*", "action": "delay", "seconds": latency, "times": None}
        faults.write_text(json.dumps([delay]), encoding="utf-8")
        far.append(timed(submit, environment))
    print(f"until the run is accepted, seconds of wall time, median (min-max) of {repetitions}")
    print(f"the first submission                  {first:.1f}")
    print(f"further ones                          {show(near)}")
    print(f"each answer {latency:g} s later             {show(far)}")
    waits = statistics.median(f - n for n, f in zip(near, far, strict=True)) / latency
    print(f"answers that are waited for in a row  {waits:.1f}")


def show(times: list[float]) -> str:
    """Format the median and the extremes."""
    return f"{statistics.median(times):.1f} ({min(times):.1f}-{max(times):.1f})"


if __name__ == "__main__":
    main()
