"""Say in words why a process that runs a step or a run has died."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from modalrun.run import notes, usage_log

_CGROUP = Path("/sys/fs/cgroup")


def describe(
    process: str, pid: int, code: int, environment: Mapping[str, str], *, out_of_memory: bool
) -> str:
    """Return a sentence about the death of a process.

    Args:
        process: What it is, such as "step's process".
        pid: Its id.
        code: Its exit code, below 0 for a signal.
        environment: Its environment.
        out_of_memory: Whether the kernel has killed a process of the sandbox to free memory.
    """
    if (reason := notes.read("reason", pid, environment)) is not None:
        return reason
    if (hook := notes.read("hook", pid, environment)) is not None:
        process = f"{hook} hook's process"
    if code >= 0:
        return f"The {process} ended with exit code {code}."
    if code != -signal.SIGKILL:
        return f"The {process} died of {_signal_name(-code)}."
    if out_of_memory:
        needed = _needed(pid, environment)
        return f"The {process} was killed because the sandbox ran out of memory{needed}."
    return f"The {process} was killed (SIGKILL)."


def _needed(pid: int, environment: Mapping[str, str]) -> str:
    """Return how much memory a process needed, as the rest of a sentence."""
    limit = min(memory_limits(), default=None)
    needed = f": it needed more than {limit:,} MiB" if limit is not None else ""
    if (peak := usage_log.peak(pid, environment)) is None:
        return needed
    most, before = peak
    when = f" {before:.0f} s before the end" if before is not None else ""
    return f"{needed}{',' if needed else ':'} peak {most:,} MiB{when}"


def memory_limits() -> Iterator[int]:
    """Yield the limits of the sandbox's cgroup in MiB, of either version of cgroups."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = int((_CGROUP / name).read_text(encoding="ascii"))
            # Version 1 says "none" by a number near 2^63.
            if limit < 1 << 60:
                yield limit >> 20


def out_of_memory_kills() -> int:
    """Return how many processes of this cgroup the kernel killed to free memory; 0 if unknown."""
    try:
        lines = (_CGROUP / "memory.events").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        # Real-time signals have no names of their own.
        return f"signal {number}"
