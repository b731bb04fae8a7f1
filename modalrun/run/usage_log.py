"""Keep what the processes of a sandbox use in a file, for whoever records the end of a step.

The supervisor creates the file and adds samples (`driver/usage_sampler.py`). The process that runs
a step marks begin and end of the step's code, and whoever reaps it its death. User code can write
there too, so a line of another form is ignored; it can lie about steps of its own sandbox only.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from modalrun.run import contract

if TYPE_CHECKING:
    from modalrun.run.usage import StepUsage, UsagePoint

SHORTEST = 1.0
"""Seconds of a step below which its end stores no usage: the request would make it slower."""

_SLICE = 0.5
"""Seconds between two readings below which their CPU time says nothing."""

_LONGEST_FILE = 32 * 1024 * 1024
_UNIT = 1 if sys.platform == "darwin" else 1024
"""Of `ru_maxrss`, in bytes."""


class Reading(NamedTuple):
    """What a process and those below it have used so far: one line of the file.

    Attributes:
        kind: "begin", "end", "sample" or "death".
        at: When, in seconds since the epoch.
        pid: The process that runs the step's code.
        cpu: CPU seconds.
        memory: Resident memory now, in bytes.
        most: The most memory that one process has had so far, in bytes; 0 in a sample.
        record: ZenML's step run id; in "begin" and "end".
        gpu: How busy the GPU is, in percent.
        gpu_memory: The memory used of one GPU, in bytes.
        gpu_size: The memory that one GPU has, in bytes.
    """

    kind: str
    at: float
    pid: int
    cpu: float
    memory: int
    most: int = 0
    record: str = ""
    gpu: float | None = None
    gpu_memory: int | None = None
    gpu_size: int | None = None


def add(path: str | None, reading: Reading) -> int:
    """Add a reading, if there is such a file; return the place after it."""
    if path is not None:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                os.write(descriptor, json.dumps(reading).encode() + b"\n")
                return os.lseek(descriptor, 0, os.SEEK_CUR)
            finally:
                os.close(descriptor)
    return 0


def read(path: str | None, start: int = 0) -> tuple[list[Reading], int]:
    """Return the readings from a place in the file on, and the place after them."""
    data = b""
    if path is not None:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                data = os.pread(descriptor, _LONGEST_FILE, start)
            finally:
                os.close(descriptor)
    whole = data[: data.rfind(b"\n") + 1]
    return list(_parsed(whole.splitlines())), start + len(whole)


class Measured:
    """Measure a step that runs in this process, from the creation of this object."""

    def __init__(self, record: str) -> None:
        """Begin to measure the step of a record, by ZenML's step run id."""
        # User code may change the environment.
        self._path = os.environ.get(contract.USAGE_FILE)
        self._begin = _own("begin", record)
        self._place = add(self._path, self._begin)

    def end(self) -> StepUsage | None:
        """Return what the step has used until now; None if it was short, or outside a sandbox."""
        end = _own("end", self._begin.record)
        add(self._path, end)
        if self._path is None or end.at - self._begin.at < SHORTEST:
            return None
        samples = [one for one in read(self._path, self._place)[0] if one.kind == "sample"]
        return _usage(self._begin, samples, end)


def of_dead(record: str, environment: Mapping[str, str]) -> StepUsage | None:
    """Return what a step has used whose process died; None if it did not die in this sandbox."""
    readings, _ = read(environment.get(contract.USAGE_FILE))
    own = [one for one in readings if one.record == record]
    if not own or own[-1].kind == "end":
        return None
    begin = own[-1]
    after = [one for one in readings if one.at >= begin.at and one.pid == begin.pid]
    death = next((one for one in after if one.kind == "death"), None)
    return _usage(begin, [one for one in after if one.kind == "sample"], death)


def event(begin: Reading, sample: Reading) -> bytes:
    """Encode a sample of a step as a `run.events.Used`: Modal may end the whole sandbox."""
    readings = [json.dumps(begin), json.dumps(sample)]
    return json.dumps({"modalrun": "used", "readings": readings}).encode()


def of_killed(record: str, told: Iterable[str]) -> StepUsage | None:
    """Return what a step has used whose whole sandbox has ended, by the readings told before."""
    readings = list(_parsed(told))
    begin = next((one for one in readings if one.record == record), None)
    return None if begin is None else _usage(begin, readings, None)


def peak(pid: int, environment: Mapping[str, str]) -> tuple[int, float | None] | None:
    """Return the most memory of a dead process in MiB, and how many seconds before its end.

    The seconds are None if the memory rose after the last sample; all is None if nothing is known.
    """
    readings = [one for one in read(environment.get(contract.USAGE_FILE))[0] if one.pid == pid]
    deaths = [one for one in readings if one.kind == "death"]
    samples = [one for one in readings if one.kind == "sample"]
    if not deaths:
        return None
    highest = max(samples, key=lambda one: one.memory, default=None)
    if highest is None or highest.memory < deaths[-1].most:
        return deaths[-1].most >> 20, None
    return highest.memory >> 20, deaths[-1].at - highest.at


def add_death(environment: Mapping[str, str], pid: int, used: resource.struct_rusage) -> None:
    """Add the last reading of a process: what the system says when it is reaped."""
    most = used.ru_maxrss * _UNIT
    path = environment.get(contract.USAGE_FILE)
    add(path, Reading("death", time.time(), pid, _seconds(used), 0, most))


def _own(kind: str, record: str) -> Reading:
    """Return a reading of this process and the children that it has waited for."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    most = own.ru_maxrss * _UNIT
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no objects for it.
            now = int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        now = most
    cpu = _seconds(own) + _seconds(children)
    return Reading(kind, time.time(), os.getpid(), cpu, now, most, record)


def _seconds(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


def _usage(begin: Reading, samples: list[Reading], last: Reading | None) -> StepUsage | None:
    """Sum up the readings of a step; None if there are none after its begin."""
    # Not for the supervisor, which starts at once: it has no use for pydantic.
    from modalrun.run.usage import MAX_POINTS, StepUsage

    readings = [one for one in samples if one.pid == begin.pid and one.at > begin.at]
    if last is not None:
        readings = [*(one for one in readings if one.at < last.at), last]
    if not readings:
        return None
    seconds = max(readings[-1].at - begin.at, 0.01)
    points = _points(begin, readings, _SLICE)
    starts = [0.0, *(point.at for point in points)]
    area = sum((p.at - start) * p.memory for p, start in zip(points, starts, strict=False))
    most = [one.memory for one in (begin, *readings)]
    if last is not None and last.most > begin.most:
        most.append(last.most)
    gpus = [one for one in readings if one.gpu is not None]
    return StepUsage(
        began=round(begin.at, 3),
        seconds=round(seconds, 2),
        cpu_seconds=round(max(one.cpu for one in (begin, *readings)) - begin.cpu, 2),
        peak_cores=max(one.cores for one in points),
        peak_memory=max(most) >> 20,
        mean_memory=round(area / max(points[-1].at, 0.01)),
        gpu=round(sum(one.gpu or 0 for one in gpus) / len(gpus)) if gpus else None,
        peak_gpu_memory=max((one.gpu_memory or 0) >> 20 for one in gpus) if gpus else None,
        gpu_memory=(gpus[-1].gpu_size or 0) >> 20 if gpus else None,
        killed=last is None or last.kind == "death",
        points=tuple(_points(begin, readings, max(_SLICE, seconds / MAX_POINTS))),
        pid=begin.pid,
    )


def _points(begin: Reading, readings: list[Reading], shortest: float) -> list[UsagePoint]:
    """Return a point for each time of so many seconds; one at least."""
    from modalrun.run.usage import UsagePoint

    points: list[UsagePoint] = []
    before, cpu, memory = begin, begin.cpu, begin.memory
    gpus: list[Reading] = []
    for one in readings:
        memory = max(memory, one.memory)
        gpus += [one] if one.gpu is not None else []
        seconds = one.at - before.at
        if seconds < shortest and (points or one is not readings[-1]):
            continue
        cores = max(0.0, one.cpu - cpu) / max(seconds, 0.01)
        busy = round(sum(gpu.gpu or 0 for gpu in gpus) / len(gpus)) if gpus else None
        held = max((gpu.gpu_memory or 0) >> 20 for gpu in gpus) if gpus else None
        points.append(
            UsagePoint(round(one.at - begin.at, 2), round(cores, 2), memory >> 20, busy, held)
        )
        # Children that still run count in samples alone.
        before, cpu, memory, gpus = one, max(cpu, one.cpu), one.memory or memory, []
    return points


def _parsed(lines: Iterable[bytes | str]) -> Iterator[Reading]:
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            reading = Reading(*json.loads(line))
            whole = [reading.pid, reading.memory, reading.most]
            whole += [one for one in (reading.gpu_memory, reading.gpu_size) if one is not None]
            numbers = [*whole, reading.at, reading.cpu, reading.gpu or 0.0]
            if (
                all(0 <= one < 1e15 for one in numbers)
                and all(isinstance(one, int) for one in whole)
                and isinstance(reading.record, str)
            ):
                yield reading
