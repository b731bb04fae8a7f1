"""One server process: started with a log, waited for, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class StartError(RuntimeError):
    """A server didn't start; the text says which, and ends with its log."""


class Server:
    """A process that serves, on a port of the loopback interface.

    Args:
        name: What it is called in errors.
        command: The program and its arguments.
        log: The file that takes its output.
        environment: All its environment variables; this process's without it.
        cwd: Where it starts.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._log = log
        self._environment = environment
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Callable[[], bool], seconds: float = 120) -> None:
        """Start it and wait until `ready()`.

        Raises:
            StartError: It ended, or isn't ready after `seconds`.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._cwd,
                start_new_session=True,
            )
        seconds *= float(os.environ.get("MODALRUN_TEST_PATIENCE", "1"))
        deadline = time.monotonic() + seconds
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                code = self._process.returncode
                self.kill()
                how = f"is not ready after {seconds:g} s" if code is None else f"ended with {code}"
                tail = self._log.read_text(errors="replace")[-2000:]
                raise StartError(f"{self.name} {how}:\n{tail}")
            time.sleep(0.05)

    def stop(self, seconds: float = 20) -> None:
        """End it in good order; by force when that takes longer than `seconds`."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it, and what it has started, as a power cut would."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody accepts connections on that port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
