"""Starting another Python program from a sandbox's first process: forked where that is possible.

On the local Modal server a sandbox may have been forked from a process that has ZenML in memory
already (`modalrun/localmodal/warm.py`). Such a process can become another program as well, which
saves that program its imports. Everywhere else the program is started as usual.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any, Protocol

MARK = "_modalrun_warm"
"""The attribute of `sys` by which a warm process is known."""


class Child(Protocol):
    """What a program that was started can be asked; as `subprocess.Popen`."""

    pid: int
    stdout: IO[bytes] | None
    stderr: IO[bytes] | None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, below 0 for a signal. Raises subprocess.TimeoutExpired."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def terminate(self) -> None:
        """SIGTERM; nothing if it has ended."""

    def kill(self) -> None:
        """SIGKILL; nothing if it has ended."""


def start(command: Sequence[str], env: Mapping[str, str], pass_fds: Sequence[int] = ()) -> Child:
    """Start `[sys.executable, "-m", MODULE, ...]` with empty input, and output to be read.

    Args:
        command: The program.
        env: Its environment.
        pass_fds: Descriptors that it gets too, under the same numbers.
    """
    warm = getattr(sys, MARK, None)
    # A forked process would have the locks of other threads, but not the threads to open them.
    if warm is not None and threading.active_count() == 1 and warm.suits(command, env):
        return Forked(warm, command, env, pass_fds)
    return subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        pass_fds=pass_fds,
    )


class Forked:
    """A program that a fork of this process became."""

    def __init__(
        self, warm: Any, command: Sequence[str], env: Mapping[str, str], pass_fds: Sequence[int]
    ) -> None:
        out, their_out = os.pipe()
        err, their_err = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                nothing = os.open(os.devnull, os.O_RDONLY)
                for number, descriptor in enumerate((nothing, their_out, their_err)):
                    os.dup2(descriptor, number)
                for descriptor in pass_fds:
                    os.set_inheritable(descriptor, True)
                warm.become(list(command), env)
            finally:
                os._exit(126)
        os.close(their_out)
        os.close(their_err)
        self.stdout: IO[bytes] | None = os.fdopen(out, "rb", 0)
        self.stderr: IO[bytes] | None = os.fdopen(err, "rb", 0)
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._end = os.pidfd_open(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """As `subprocess.Popen.wait`."""
        # Not `waitpid`, which has no time limit.
        if not select.select([self._end], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a forked program", timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def poll(self) -> int | None:
        """As `subprocess.Popen.poll`."""
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def terminate(self) -> None:
        """As `subprocess.Popen.terminate`."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """As `subprocess.Popen.kill`."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        # Not `os.kill`: the process may be gone, and its number another one's.
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._end, number)
