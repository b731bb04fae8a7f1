"""One set of servers for all processes of a test run: the first that needs it starts it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from servers import together
from servers.together import Servers

_PID = "keeper.pid"
PATIENCE = float(os.environ.get("MODALRUN_TEST_PATIENCE", "1"))
"""How many times longer than usual tests wait before they give up: for machines that are busy."""

SECONDS = 240.0 * PATIENCE
"""How long the servers may take to start on busy cores; 25 s on two idle ones."""


def folder(config: pytest.Config) -> Path:
    """Where the servers of this test run keep their data."""
    base = Path(config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    # A worker of pytest-xdist has a folder of its own in that of the test run.
    return (base.parent if hasattr(config, "workerinput") else base) / "servers"


def acquire(config: pytest.Config) -> Servers:
    """The servers; started now if they don't run yet."""
    given = config.getoption("--servers")
    if given:
        running = together.read(Path(given))
        assert running is not None, f"no servers run below {given}"
        return running
    home = folder(config)
    home.mkdir(mode=0o700, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = together.read(home)
        if found is not None:
            return found
        main = os.getppid() if hasattr(config, "workerinput") else os.getpid()
        with (home / "keeper.log").open("ab") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-m", "servers", str(home), "--while", str(main)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
                start_new_session=True,
            )
        (home / _PID).write_text(str(keeper.pid))
        deadline = time.monotonic() + SECONDS
        while found is None:
            if keeper.poll() is not None or time.monotonic() > deadline:
                keeper.terminate()
                pytest.fail(f"no ZenML server:\n{(home / 'keeper.log').read_text()}")
            time.sleep(0.1)
            found = together.read(home)
        return found


def release(config: pytest.Config) -> str | None:
    """End the servers, if any test has needed them; returns which database they had."""
    home = folder(config)
    if not (home / _PID).exists():
        return None
    used = together.read(home)
    keeper = int((home / _PID).read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(keeper, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and _alive(keeper):
        time.sleep(0.05)
    return used.database if used else None


def _alive(pid: int) -> bool:
    # It is the child of a worker that has ended, or of this process, which has to collect it.
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    except ChildProcessError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
