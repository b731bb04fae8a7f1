"""Start another Python program from a sandbox's first process, by a fork if possible.

On the local Modal server a sandbox may have been forked from a warm process, which has ZenML in
memory (`modalrun/localmodal/sandbox/warm.py`). A fork of it saves a program its imports. Anywhere
else the program is started as usual.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from modalrun.driver.processes import privileges

OWN_SESSION = sys.platform == "linux"
"""Elsewhere the local Modal server ends a sandbox by its process group (`sandbox/keeper.py`)."""

_NOT_BEGUN = 126
"""The exit code of a fork that could not become its program, as of a shell."""

_SIZE = 8
"""Bytes in which `Ahead` gets the length of its program."""

MARK = "_modalrun_warm"
"""The attribute of `sys` that a warm process has."""


def start(command: Sequence[str], env: Mapping[str, str], pass_fds: Sequence[int] = ()) -> Child:
    """Start `[sys.executable, "-m", MODULE, ...]` with empty input and pipes for its output.

    It inherits the descriptors `pass_fds` under the same numbers.
    """
    warm = getattr(sys, MARK, None)
    # A fork inherits the locks that other threads hold, and nothing would release them.
    if warm is not None and threading.active_count() == 1 and warm.suits(command, env):
        return Forked(warm, command, env, pass_fds)
    return subprocess.Popen(  # noqa: S603 (the command is ours)
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        pass_fds=pass_fds,
        # A signal that user code sends to its process group must not reach the supervisor.
        start_new_session=OWN_SESSION,
    )


class Forked:
    """Run a program in a fork of this process, with a part of the surface of `subprocess.Popen`."""

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
                os.setsid()
                # As after exec.
                privileges.show_process()
                empty = os.open(os.devnull, os.O_RDONLY)
                for number, descriptor in enumerate((empty, their_out, their_err)):
                    os.dup2(descriptor, number)
                for descriptor in pass_fds:
                    os.set_inheritable(descriptor, True)
                warm.become(list(command), env)
            finally:
                os._exit(_NOT_BEGUN)
        os.close(their_out)
        os.close(their_err)
        self.stdout: IO[bytes] | None = os.fdopen(out, "rb", 0)
        self.stderr: IO[bytes] | None = os.fdopen(err, "rb", 0)
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._end = os.pidfd_open(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit code, below 0 for a signal."""
        # `waitpid` has no time limit.
        if not select.select([self._end], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a forked program", timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def poll(self) -> int | None:
        """Return its exit code; None while it runs."""
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM; nothing happens if it has ended."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL; nothing happens if it has ended."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        # Not `os.kill`: the process may be gone, and its id reused.
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._end, number)


class Ahead:
    """Run a program in a fork that was made ahead: once there are threads, nothing is forked."""

    def __init__(self, warm: Any) -> None:
        self._warm = warm
        order, write = os.pipe()
        self._order = os.fdopen(write, "wb")
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._order.close()
                os.setsid()
                if size := _read(order, _SIZE):
                    program = json.loads(_read(order, int.from_bytes(size, "big")))
                    os.dup2(order, 0)
                    warm.become(*program)
            finally:
                os._exit(_NOT_BEGUN)
        os.close(order)

    def run(self, command: Sequence[str], env: Mapping[str, str], text: bytes) -> bool:
        """Run a command to its end, with a text as its input and the output of this process.

        Returns:
            Whether it has come to its own end: not if the fork can't become it, or was killed.
        """
        if not self._warm.suits(command, env):
            return False
        program = json.dumps([list(command), dict(env)]).encode()
        with contextlib.suppress(BrokenPipeError), self._order as pipe:
            pipe.write(len(program).to_bytes(_SIZE, "big") + program + text)
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code >= 0 and code != _NOT_BEGUN

    def close(self) -> None:
        """Let it end, if it runs nothing."""
        self._order.close()


def ahead() -> Ahead | None:
    """Make a fork for a program that is run later; None if this process is not warm."""
    warm = getattr(sys, MARK, None)
    return Ahead(warm) if warm is not None and threading.active_count() == 1 else None


def _read(descriptor: int, size: int) -> bytes:
    """Read as many bytes; b"" if the other end is closed before."""
    found = bytearray()
    while len(found) < size:
        if not (part := os.read(descriptor, size - len(found))):
            return b""
        found += part
    return bytes(found)


Child = Forked | subprocess.Popen[bytes]
