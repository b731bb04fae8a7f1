"""Sample what steps use, in a thread of a sandbox's supervisor.

Every two seconds it reads the processes of the steps that run: those whose begin stands in the file
of `run/usage_log.py`. So a supervisor whose child runs no steps, or short ones, samples nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Collection

from modalrun.driver.lines.output_pumps import write_event
from modalrun.driver.processes.privileges import without_source
from modalrun.run import contract
from modalrun.run.usage_log import Reading, add, event, read

INTERVAL = 2.0
"""Seconds between two samples at least."""

SHARE = 0.005
"""The most of one core that sampling takes, and to look anew at memory that processes share.

The system goes through all pages of a process for that.
"""

RISE = 1.1
"""How much the memory of a step rises until that is told, in case that its sandbox is killed."""

Gpu = tuple[float, int, int]
"""How busy the GPUs are in percent; of one, the most memory used, and what it has, in bytes."""


_threads: list[threading.Thread] = []


def start(path: str) -> None:
    """Sample the steps that a file names, from another thread, until this process ends."""
    if not _threads:
        _threads.append(threading.Thread(target=_run, args=(path,), daemon=True))
        _threads[0].start()


def _run(path: str) -> None:
    try:
        _sample(path)
    except Exception as error:
        # A kernel may show processes in another way, or the image lack psutil.
        sys.stderr.write(f"modalrun: What steps use is not measured: {error!r}\n")
        sys.stderr.flush()


def _sample(path: str) -> None:
    running: dict[str, Reading] = {}
    told: dict[str, int] = {}
    shared: dict[int, int] = {}
    place, pause, anew = 0, INTERVAL, 0.0
    read_gpu: Callable[[], Gpu | None] | None = None
    while True:
        time.sleep(pause)
        began = time.thread_time()
        readings, place = read(path, place)
        for one in readings:
            if one.kind == "begin":
                running[one.record] = one
            elif one.kind == "end":
                running.pop(one.record, None)
            elif one.kind == "death":
                running = {key: begin for key, begin in running.items() if begin.pid != one.pid}
        if running:
            if looks_anew := time.monotonic() > anew:
                shared.clear()
            read_gpu = read_gpu or gpu_reader()
            pids = {begin.pid for begin in running.values()}
            for one in sampled(pids, read_gpu(), shared):
                add(path, one)
                for record, begin in running.items():
                    rises = begin.pid == one.pid and one.memory > RISE * told.get(record, 0)
                    if rises and write_event(event(begin, one)):
                        told[record] = one.memory
            rest = (time.thread_time() - began) / SHARE
            if looks_anew:
                anew = time.monotonic() + rest
            pause = INTERVAL if looks_anew else max(INTERVAL, rest)


def sampled(roots: Collection[int], gpu: Gpu | None, shared: dict[int, int]) -> list[Reading]:
    """Return a reading of each of these processes below this one, with all below it.

    Args:
        roots: Their ids.
        gpu: What is known of the GPUs.
        shared: By process id, how much of its memory a process below them shares; what is missing
            is added. A fork shares nearly all with its parent.
    """
    with without_source():
        import psutil

    found: dict[int, tuple[float, int]] = {}
    owners: dict[int, int] = {}
    with contextlib.suppress(psutil.Error):
        # Parents come before their children.
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error), process.oneshot():
                root = process.pid if process.pid in roots else owners.get(process.ppid())
                if root is None:
                    continue
                owners[process.pid] = root
                cpu, memory = found.get(root, (0.0, 0))
                # With the time of its children that have ended.
                cpu += sum(process.cpu_times()[:4])
                resident = process.memory_info().rss
                found[root] = cpu, memory + resident
                if process.pid != root:
                    if process.pid not in shared:
                        shared[process.pid] = resident - process.memory_full_info().uss
                    found[root] = cpu, memory + max(0, resident - shared[process.pid])
    now = time.time()
    return [
        Reading("sample", now, pid, cpu, memory, 0, "", *(gpu or ()))
        for pid, (cpu, memory) in found.items()
    ]


def gpu_reader() -> Callable[[], Gpu | None]:
    """Return a function that reads the sandbox's GPUs; its result is None if that can't be done.

    Not without the package `nvidia-ml-py`, which a finished image may lack.
    """
    if contract.GPU not in os.environ:
        return lambda: None
    try:
        with without_source():
            import pynvml
        pynvml.nvmlInit()
        gpus = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
    except Exception:
        return lambda: None

    def gpu() -> Gpu | None:
        try:
            rates = [pynvml.nvmlDeviceGetUtilizationRates(one).gpu for one in gpus]
            memory = [pynvml.nvmlDeviceGetMemoryInfo(one) for one in gpus]
        except pynvml.NVMLError:
            return None
        if not gpus:
            return None
        fullest = max(memory, key=lambda one: one.used)
        return sum(rates) / len(rates), fullest.used, fullest.total

    return gpu
