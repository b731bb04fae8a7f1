"""A signal is answered although nobody reads the output, which a step floods."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.commands import DEADLINE

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

SPEC = "pipeline: flooding.flooding\ntarget: local\nsettings: {orchestrator: {mode: MODE}}\n"
MODES = ["pipeline", pytest.param("per_step", marks=pytest.mark.exhaustive)]


def waiting(descriptor: int) -> int:
    """Return how many bytes nobody has read."""
    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0"))[0])


def start(world: World, mode: str, out: int, err: int, in_: int) -> subprocess.Popen[bytes]:
    spec = world.spec(SPEC.replace("MODE", mode))
    return subprocess.Popen(
        [sys.executable, "-m", "modalrun", "submit", str(spec)],
        stdin=in_,
        stdout=out,
        stderr=err,
        env=world.environment | {"TERM": "xterm-256color"},
        cwd=world.elsewhere,
        start_new_session=True,
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_pipe(world: World, mode: str) -> None:
    ours, out = os.pipe()
    # One pipe for both: even what the command itself says is not read.
    with start(world, mode, out, out, subprocess.DEVNULL) as command:
        try:
            world.wait_until(lambda: waiting(ours) > 60_000, "the pipe is full")
            command.send_signal(signal.SIGINT)
            assert command.wait(DEADLINE) == 130
        finally:
            command.kill()
    os.close(ours)
    os.close(out)
    assert world.only_run().status == "stopped"


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", MODES)
def test_a_terminal(world: World, mode: str) -> None:
    ours, out = pty.openpty()
    with start(world, mode, out, out, out) as command:
        try:
            read = 0
            while read < 300_000:
                read += len(os.read(ours, 65536))
            # The question that the first one asks can't be read; the second one detaches.
            command.send_signal(signal.SIGINT)

            def ended() -> bool:
                # Two signals at the same moment are one.
                command.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    command.wait(0.5)
                return command.returncode is not None

            world.wait_until(ended, "the command has ended")
            assert command.returncode == 130
        finally:
            command.kill()
    os.close(ours)
    os.close(out)
    assert world.only_run().status == "running"
    assert world.modalrun("stop", "--force", world.only_run().id).finish().exit_code == 0


def catches(process: int, number: int) -> bool:
    """Return whether a process has a handler for a signal."""
    status = Path(f"/proc/{process}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_terminal_that_is_full_from_the_start(world: World, number: int) -> None:
    """The signal comes while ZenML is imported, which may turn its exception into another one."""
    ours, out = pty.openpty()
    os.set_blocking(out, False)
    for size in (1024, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(out, b"x" * size)
    os.set_blocking(out, True)
    with start(world, "pipeline", out, out, out) as command:
        try:
            world.wait_until(lambda: catches(command.pid, signal.SIGTERM), "it has handlers")
            maps = Path(f"/proc/{command.pid}/maps")
            world.wait_until(lambda: "pydantic_core" in maps.read_text(), "it imports ZenML")
            command.send_signal(number)
            assert command.wait(20) == 128 + number
        finally:
            command.kill()
    os.close(ours)
    os.close(out)
    assert world.runs() == []
