"""Measure a separate local Modal server with the real SDK.

    python benchmarks/local_server.py [--sandboxes 100] [--rounds 20]

Prints in milliseconds: the start of the server; the time from `Sandbox.create` to its return, to
the first line and to the end of `wait`; the time from `print` in a sandbox to its reader. Then
prints the number of sandboxes that stream at once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modalrun.localmodal import launcher
from modalrun.localmodal.server_info import ServerInfo

PRINT_TIMES = "import time\nfor _ in range(100): print(time.time(), flush=True); time.sleep(0.01)"
PRINT_SLOWLY = "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.5; done"


def show(what: str, seconds: list[float]) -> None:
    """Print the median and the 95th percentile."""
    ordered = sorted(seconds)
    high = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    median = statistics.median(ordered)
    print(f"{what:<42} p50 {median * 1000:8.1f} ms   p95 {high * 1000:8.1f} ms")


@contextmanager
def server() -> Iterator[ServerInfo]:
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        starts = []
        for _ in range(5):
            begin = time.perf_counter()
            info = launcher.ensure_running(state)
            starts.append(time.perf_counter() - begin)
            launcher.stop(state)
        show("start of the server, to ready", starts)
        info = launcher.ensure_running(state)
        try:
            yield info
        finally:
            launcher.stop(state)


def one_by_one(modal: Any, app: Any, image: Any, gpu: str | None, rounds: int) -> None:
    name = "V1 (gpu)" if gpu else "V2 (cpu)"
    created, first, ended = [], [], []
    for _ in range(rounds):
        begin = time.perf_counter()
        sandbox = modal.Sandbox.create("echo", "hi", app=app, image=image, gpu=gpu)
        created.append(time.perf_counter() - begin)
        next(iter(sandbox.stdout))
        first.append(time.perf_counter() - begin)
        sandbox.wait()
        ended.append(time.perf_counter() - begin)
    show(f"{name}: create", created)
    show(f"{name}: create to first line", first)
    show(f"{name}: create to end of wait", ended)
    sandbox = modal.Sandbox.create("python", "-c", PRINT_TIMES, app=app, image=image, gpu=gpu)
    show(f"{name}: print to loop", [time.time() - float(line) for line in sandbox.stdout])


def at_once(modal: Any, app: Any, image: Any, gpu: str | None, count: int) -> None:
    """Read both streams of many sandboxes that print ten lines over five seconds."""
    name = "V1 (gpu)" if gpu else "V2 (cpu)"

    def run(_: int) -> tuple[float, int]:
        sandbox = modal.Sandbox.create(
            "sh", "-c", PRINT_SLOWLY, app=app, image=image, gpu=gpu, timeout=120
        )
        lines = iter(sandbox.stdout)
        next(lines)
        seen = time.perf_counter() - begin
        number = 1 + sum(1 for _ in lines)
        sandbox.stderr.read()
        sandbox.wait()
        return seen, number

    begin = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        results = list(pool.map(run, range(count)))
    total = time.perf_counter() - begin
    whole = sum(number == 10 for _, number in results)
    show(f"{name}: {count} at once, first line", [seen for seen, _ in results])
    print(f"{name}: {count} at once, {whole} complete{'':<9} in  {total:8.1f} s (5.0 is ideal)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sandboxes", type=int, default=100, help="how many stream at once")
    parser.add_argument("--rounds", type=int, default=20, help="how often latencies are measured")
    arguments = parser.parse_args()
    with server() as info:
        os.environ.update(info.environ())
        import modal

        app = modal.App.lookup("benchmark", create_if_missing=True)
        image = modal.Image.debian_slim()
        modal.Sandbox.create("true", app=app, image=image).wait()
        for gpu in (None, "T4"):
            one_by_one(modal, app, image, gpu, arguments.rounds)
        for gpu in (None, "T4"):
            at_once(modal, app, image, gpu, arguments.sandboxes)


if __name__ == "__main__":
    main()
