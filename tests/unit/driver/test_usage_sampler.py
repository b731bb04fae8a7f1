"""The sampler: processes below this one, and GPUs by the interface of `nvidia-ml-py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modalrun.driver.usage_sampler import gpu_reader, sampled
from modalrun.run import contract

MIB = 1024 * 1024

HOLDING = """
import os, subprocess, sys, time
held = bytearray(b"x") * (100 << 20)
for _ in range(2):
    if os.fork() == 0:
        time.sleep(60)
if os.fork() == 0:
    while sum(os.times()[:2]) < 0.5:
        pass
    os._exit(0)
os.wait()
print("ready", flush=True)
time.sleep(60)
"""
"""A process with memory, two forks that share it, and a child that has ended."""

NVML = '''
"""A part of the documented interface of NVIDIA's `pynvml`, for two GPUs."""
from collections import namedtuple

class NVMLError(Exception):
    pass

Rates = namedtuple("Rates", "gpu memory")
Memory = namedtuple("Memory", "total free used")
started = []

def nvmlInit():
    started.append(True)

def nvmlDeviceGetCount():
    assert started
    return 2

def nvmlDeviceGetHandleByIndex(index):
    return ("handle", index)

def nvmlDeviceGetUtilizationRates(handle):
    return Rates((40, 20)[handle[1]], 3)

def nvmlDeviceGetMemoryInfo(handle):
    used = (5 << 30, 7 << 30)[handle[1]]
    return Memory(16 << 30, (16 << 30) - used, used)
'''


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def install(text: str) -> None:
        (tmp_path / "pynvml.py").write_text(text)

    monkeypatch.setenv(contract.GPU, "T4:2")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    sys.modules.pop("pynvml", None)


def test_a_process_with_all_below_it() -> None:
    shared: dict[int, int] = {}
    command = [sys.executable, "-c", HOLDING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            (found,) = sampled({process.pid, os.getpid(), 1}, None, shared)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert (found.kind, found.pid, found.gpu) == ("sample", process.pid, None)
    assert found.at == pytest.approx(time.time(), abs=60)
    assert 0.5 <= found.cpu < 3
    assert 100 * MIB < found.memory < 150 * MIB
    assert len(shared) == 2
    assert all(one > 90 * MIB for one in shared.values())


def test_processes_that_are_not_below_this_one_are_not_read() -> None:
    assert sampled({1, os.getppid()}, None, {}) == []


def test_gpus(nvml: Callable[[str], None]) -> None:
    nvml(NVML)
    assert gpu_reader()() == (30.0, 7 << 30, 16 << 30)


@pytest.mark.parametrize(
    "text",
    [
        "raise ImportError('libnvidia-ml.so.1')",
        NVML.replace("started.append(True)", "raise NVMLError('no driver')"),
        NVML.replace("return 2", "return 0"),
        NVML.replace("return Rates", "raise NVMLError"),
    ],
)
def test_gpus_that_can_not_be_read(nvml: Callable[[str], None], text: str) -> None:
    nvml(text)
    assert gpu_reader()() is None


def test_a_sandbox_without_a_gpu_reads_none(
    nvml: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml(NVML)
    monkeypatch.delenv(contract.GPU)
    assert gpu_reader()() is None
    assert "pynvml" not in sys.modules
