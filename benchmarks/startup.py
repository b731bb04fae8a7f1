"""Measure the start of `modalrun --help`, and what the processes of a run import.

Usage: python benchmarks/startup.py [repetitions]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import typer'": ["-c", "import typer"],
    "modalrun --help": ["-m", "modalrun", "--help"],
    "modalrun --version": ["-m", "modalrun", "--version"],
    "modalrun submit (spec with a wrong key)": ["-m", "modalrun", "submit", "/dev/null"],
    "python -c 'import modal'": ["-c", "import modal"],
    "python -c 'import zenml'": ["-c", "import zenml"],
}

EXECUTION = "modalrun.zenml_api.execution"
STEP_SANDBOXES = "modalrun.modal_api.sandboxes.step_sandboxes"
PROCESSES = {
    "supervisor": ("modalrun.driver.supervisor",),
    "runner": ("modalrun.driver.pipeline", f"{EXECUTION}.pipeline_steps"),
    "driver": ("modalrun.driver.per_step", STEP_SANDBOXES, "modal"),
    "step": ("modalrun.driver.step", f"{EXECUTION}.single_step"),
    "step worker": ("modalrun.driver.step_worker", f"{EXECUTION}.single_step:import_ahead"),
    "step worker, ZenML server": (
        "modalrun.driver.step_worker",
        f"{EXECUTION}.single_step:import_ahead",
    ),
    "dynamic pipeline": ("modalrun.driver.dynamic", f"{EXECUTION}.dynamic"),
    "broker": ("modalrun.driver.sandbox_broker", STEP_SANDBOXES, "modal"),
}
SERVER = {"ZENML_STORE_URL": "https://zenml.example"}

IMPORT = """
import gc, importlib, json, sys, time
gc.disable()
before = len(sys.modules)
for name in sys.argv[1:]:
    module, _, function = name.partition(":")
    module = importlib.import_module(module)
    if function:
        getattr(module, function)()
ours = sum(name.startswith("modalrun") for name in sys.modules)
print(json.dumps([time.process_time(), len(sys.modules) - before - ours, ours]))
"""


def measure_commands(repetitions: int) -> None:
    """Print each command's median and extremes in seconds, and its multiple of `python -c pass`."""
    print(f"seconds, median (min-max) of {repetitions}, multiple of `python -c pass`")
    empty = 0.0
    for name, arguments in COMMANDS.items():
        times = []
        for _ in range(repetitions):
            begin = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
            times.append(time.perf_counter() - begin)
        median = statistics.median(times)
        empty = empty or median
        extremes = f"({min(times):.3f}-{max(times):.3f})"
        print(f"{name:42} {median:.3f} {extremes} {median / empty:6.1f}x")


def measure_processes(repetitions: int) -> None:
    """Print what each process of a run imports, and the CPU time of Python's start and that."""
    print(f"\nseconds of CPU time, median (min-max) of {repetitions}; modules imported")
    for name, modules in PROCESSES.items():
        variables = SERVER if name.endswith("server") else {}
        found = []
        for _ in range(repetitions):
            done = subprocess.run(
                [sys.executable, "-c", IMPORT, *modules],
                env=os.environ | variables,
                stdout=subprocess.PIPE,
                check=True,
            )
            found.append(json.loads(done.stdout))
        times = [seconds for seconds, _, _ in found]
        _, others, ours = found[0]
        extremes = f"({min(times):.3f}-{max(times):.3f})"
        print(
            f"{name:28} {statistics.median(times):.3f} {extremes}"
            f" {ours:4} of modalrun {others:5} others"
        )


def main() -> None:
    """Measure both."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    measure_commands(repetitions)
    measure_processes(repetitions)


if __name__ == "__main__":
    main()
