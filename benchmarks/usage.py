"""Print what it costs to sample what a step uses (`modalrun/driver/usage_sampler.py`).

Usage: python benchmarks/usage.py [--samples 50]

For steps of one process and of several, prints the CPU time of one sample, and its share of a core
at the pause that follows it. Processes that only run beside the step count too: the system lists
all of them. The last line is what a step pays whose code takes no time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

import psutil

from modalrun.driver import usage_sampler
from modalrun.run import contract, usage_log

STEP = """
import os, sys, time
held = bytearray(b"x") * (int(sys.argv[2]) << 20)
for _ in range(int(sys.argv[1]) - 1):
    if os.fork() == 0:
        break
else:
    print("ready", flush=True)
time.sleep(600)
"""


def cost(processes: int, mib: int, samples: int) -> tuple[float, float]:
    """Return the CPU seconds of one sample of such a step, and of one that looks anew."""
    command = [sys.executable, "-c", STEP, str(processes), str(mib)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as step:
        assert step.stdout is not None
        step.stdout.readline()
        times: dict[bool, list[float]] = {True: [], False: []}
        shared: dict[int, int] = {}
        for number in range(2 * samples + 1):
            if anew := number % 2 == 1:
                shared.clear()
            began = time.thread_time()
            usage_sampler.sampled({step.pid}, None, shared)
            times[anew].append(time.thread_time() - began)
        os.killpg(step.pid, 9)
    # The first one imports psutil.
    return statistics.median(times[False][1:]), statistics.median(times[True])


def marks(times: int) -> float:
    """Return the CPU seconds of the begin and the end of a short step."""
    with tempfile.NamedTemporaryFile() as file:
        os.environ[contract.USAGE_FILE] = file.name
        began = time.process_time()
        for _ in range(times):
            usage_log.Measured("00000000-0000-4000-8000-000000000001").end()
        return (time.process_time() - began) / times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=50)
    samples = parser.parse_args().samples
    print(f"processes on this machine: {len(psutil.pids())}")
    print("step                                 a sample    every  anew      every  of a core")
    for processes, mib in ((1, 100), (1, 4000), (9, 100), (9, 1000), (33, 1000)):
        plain, anew = cost(processes, mib, samples)
        pause, rest = (
            max(usage_sampler.INTERVAL, one / usage_sampler.SHARE) for one in (plain, anew)
        )
        name = f"{processes} process{'es' * (processes > 1)}, {mib} MiB in the first"
        share = plain / pause + (anew - plain) / rest
        print(
            f"{name:35}  {plain * 1000:5.1f} ms  {pause:4.1f} s"
            f"  {anew * 1000:5.1f} ms  {rest:4.0f} s  {share:8.2%}"
        )
    print(f"begin and end of a step, as two lines: {marks(1000) * 1000:.3f} ms")


if __name__ == "__main__":
    main()
