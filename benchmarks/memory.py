"""Print how much memory a large `per_step` run takes on the local Modal server.

Usage: python benchmarks/memory.py [--steps 1000] [--at-once 100]

The steps are trivial, and as many as `--at-once` run at the same time. Prints the largest resident
memory of the driver, which goes through all steps, and of `modalrun submit`, which follows the
sandboxes. Pages that the driver shares with the process it is forked from count in full.
"""

from __future__ import annotations

import argparse
import json
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
    """Print one line per process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=100)
    wanted = parser.parse_args()
    with place(cold=False) as here:
        of_driver, of_submit, seconds = measure(here, wanted.steps, wanted.at_once)
    print(f"{wanted.steps} steps, {wanted.at_once} at once, in {seconds:.0f} s")
    print(f"driver  {of_driver:4.0f} MB")
    print(f"submit  {of_submit:4.0f} MB")


if __name__ == "__main__":
    main()
