"""Print how much memory a large `per_step` run takes on the local Modal server.

Usage: python benchmarks/memory.py [--steps 100,1000] [--at-once 100]

The steps are trivial, and as many as `--at-once` run at the same time. Prints, for runs of so many
steps, the largest resident memory of the driver, and of `modalrun submit`, which compiles the
pipeline and follows the sandboxes. Pages that the driver shares with the process it is forked from
count in full.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
from place import Place, parents_of, place

DRIVER = "modalrun.driver.per_step"


def largest(pid: int) -> float:
    """Return the largest resident memory that a process has had, in MB; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0]) / 1024 if found else 0.0


def driver_of(folder: Path) -> int | None:
    """Return the process id of the driver whose sandbox is below a folder."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = process.info["cmdline"] or []
        if command[1:3] == ["-m", DRIVER] and str(process.info["cwd"]).startswith(str(folder)):
            return process.pid
    return None


def measure(here: Place, steps: int, at_once: int) -> tuple[float, float, float]:
    """Run a fan; return the memory of driver and `submit` in MB, and the seconds."""
    spec = {
        "pipeline": "graphs.graph",
        "target": "local",
        "settings": {
            "orchestrator": {"mode": "per_step", "timeout": 7200, "max_parallelism": at_once}
        },
        "parameters": {"parents": parents_of(f"fan-{steps - 2}")},
    }
    path = here.project / "run.yaml"
    path.write_text(json.dumps(spec), encoding="utf-8")
    began = time.perf_counter()
    with (here.folder / "output").open("wb") as output:
        submit = subprocess.Popen(
            [here.python, "-m", "modalrun", "submit", str(path)],
            env=here.environment,
            cwd=here.project,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        driver: int | None = None
        of_driver = of_submit = 0.0
        while submit.poll() is None:
            driver = driver or driver_of(here.folder)
            of_driver = max(of_driver, largest(driver) if driver else 0.0)
            of_submit = max(of_submit, largest(submit.pid))
            time.sleep(0.2)
    if submit.returncode != 0:
        sys.exit((here.folder / "output").read_text(encoding="utf-8")[-3000:])
    return of_driver, of_submit, time.perf_counter() - began


def main() -> None:
    """Print one line per run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", default="100,1000")
    parser.add_argument("--at-once", type=int, default=100)
    wanted = parser.parse_args()
    print(f"load of this machine at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'steps':>5}{'at once':>9}{'driver':>10}{'submit':>10}{'total':>8}")
    with place(cold=False) as here:
        for steps in map(int, wanted.steps.split(",")):
            driver, submit, seconds = measure(here, steps, wanted.at_once)
            print(
                f"{steps:>5}{wanted.at_once:>9}{driver:>7.0f} MB{submit:>7.0f} MB{seconds:>6.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
