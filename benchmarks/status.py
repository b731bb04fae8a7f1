"""Measure `modalrun status` and `list` for a finished run against opening ZenML's client.

Uses the configured ZenML, which must have a run. `user` is CPU time, which is more reliable than
wall time on a shared machine.

Usage: python benchmarks/status.py [repetitions] [RUN]
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time


def main() -> None:
    """Print both figures, their ratio, and the same for `list` and for an opened store."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    run = sys.argv[2] if len(sys.argv) > 2 else "latest"
    commands = {
        "Client()": ["-c", "from zenml.client import Client; Client()"],
        "Client().zen_store": ["-c", "from zenml.client import Client; Client().zen_store"],
        f"modalrun status {run}": ["-m", "modalrun", "status", run],
        "modalrun list": ["-m", "modalrun", "list"],
    }
    clock: dict[str, list[float]] = {name: [] for name in commands}
    cpu: dict[str, list[float]] = {name: [] for name in commands}
    # In turns, so that what else the machine does falls on all of them alike.
    for _ in range(repetitions):
        for name, arguments in commands.items():
            before, begin = _cpu_seconds(), time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            clock[name].append(time.perf_counter() - begin)
            cpu[name].append(_cpu_seconds() - before)
    base, base_cpu = (statistics.median(times["Client()"]) for times in (clock, cpu))
    title = f"seconds, median (min-max) of {repetitions}"
    print(f"{title:32} {'clock':24} {'cpu':24} of Client()")
    for name in commands:
        ratios = statistics.median(clock[name]) / base, statistics.median(cpu[name]) / base_cpu
        print(
            f"{name:32} {_figures(clock[name]):24} {_figures(cpu[name]):24}"
            f" {ratios[0]:.2f} clock, {ratios[1]:.2f} cpu"
        )


def _figures(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})"


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
