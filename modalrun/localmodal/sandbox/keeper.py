"""Run one sandbox's command as its init: forward signals, and kill every process that it leaves.

`python -I -S keeper.py SOCKET STATE` is the nursery: for each message on the socket, which carries
the file descriptors of a sandbox, it forks a keeper. That is twenty times as fast as a new Python.
The nursery ends with its socket, a keeper with its control socket. `ps` shows STATE, the state
folder.

The keeper reads from the control socket: the length of the command (8 digits), the command, and
later the number of each signal, as a byte. It forwards signals, also those that it gets itself, to
the process group of the command, as `dumb-init` does in a V1 sandbox of Modal (modal-client issue
3992, read 2026-11-27). SIGKILL kills the command and all its descendants; so does the end of the
socket, which means that the server has died. The keeper writes `started PID KEEPER`, the process
ids of the command and of itself, then `exit CODE KILLED` when the command and all its descendants
have ended. A command that `lingers`, as those of `exec` do, leaves its descendants running: the
keeper writes the exit at the end of the command, and ends with the last descendant.

On Linux the keeper is a child subreaper and so finds orphans, even after setsid. Elsewhere it kills
the process group only. Every sandbox has this module in memory, so it imports very little.
"""

# ruff: noqa: PTH208, PTH123, SIM105 - pathlib and contextlib would make it larger.
from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_FORWARDED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT),
    *(signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2),
)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def pack(
    argv: list[str], env: dict[str, str], cwd: str, open_files: int, *, lingers: bool = False
) -> bytes:
    """Encode a command for the keeper, with NULs between fields. ValueError for a NUL in one."""
    fields = [str(int(lingers)), cwd, str(open_files), str(len(argv)), *argv]
    fields += [f"{key}={value}" for key, value in env.items()]
    if any("\0" in field for field in fields):
        raise ValueError("a NUL in the command or in its environment")
    body = b"\0".join(os.fsencode(field) for field in fields)
    return b"%08d" % len(body) + body


def _read_exactly(descriptor: int, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = os.read(descriptor, size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return parts


def execute(argv: list[str], env: dict[str, str]) -> None:
    """Replace this process by the command. Raises OSError."""
    os.execvpe(argv[0], argv, env)  # noqa: S606 (a sandbox's command)


Run = Callable[[list[str], dict[str, str]], None]
"""Turns the prepared process into the command and does not return."""


def _become(body: bytes, stdio: tuple[int, int, int], control: int, keeper: int, run: Run) -> None:
    """Turn the forked child into the command, or print the reason of a failure."""
    _, cwd, open_files, count, *rest = [os.fsdecode(field) for field in body.split(b"\0")]
    argv, env = rest[: int(count)], dict(pair.split("=", 1) for pair in rest[int(count) :])
    os.setsid()
    for number, descriptor in enumerate(stdio):
        os.dup2(descriptor, number)
    for descriptor in (*stdio, control):
        os.close(descriptor)
    if os.isatty(0):
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(137)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # The command would inherit the signals that Python ignores.
        if signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    os.umask(0o022)
    if int(open_files):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(open_files), hard))
    code, what = 126, cwd
    try:
        os.chdir(cwd)
        what = argv[0]
        run(argv, env)
    except FileNotFoundError as error:
        code, reason = 127, error.strerror
    except OSError as error:
        reason = error.strerror
    os.write(2, f"{what}: {reason}\n".encode("utf-8", "backslashreplace"))
    os._exit(code)


def _descendants() -> set[int]:
    """Find every process below this one in /proc."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    # The name, in brackets, may itself contain spaces and brackets.
                    parents[int(entry)] = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
    found = {os.getpid()}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found - {os.getpid()}


def _send(pid: int, number: int = signal.SIGKILL, *, group: bool = False) -> None:
    try:
        (os.killpg if group else os.kill)(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


class Keeper:
    """The keeper of one command. `code` is the command's exit code."""

    def __init__(self, control: int, main: int) -> None:
        self.control = control
        self.main = main
        self.code: int | None = None
        self.killed = False

    def _note(self, pid: int, status: int) -> None:
        if pid == self.main:
            self.code = os.waitstatus_to_exitcode(status)
            if self.code < 0:
                self.code = 128 - self.code

    def _reap(self) -> bool:
        """Reap ended children; return whether any child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self._note(pid, status)

    def watch(self, wakeup: int, *, descendants: bool = False) -> None:
        """Forward signals until the command (or all descendants) ended or must be killed."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(wakeup, select.POLLIN)
        while not self.killed:
            is_left = self._reap()
            if not is_left or (self.code is not None and not descendants):
                return
            for descriptor, _ in poll.poll():
                try:
                    numbers = os.read(descriptor, 512)
                except ConnectionResetError:
                    numbers = b""
                if descriptor == self.control and (not numbers or signal.SIGKILL in numbers):
                    self.killed = True
                    return
                for number in numbers:
                    if number in _FORWARDED:
                        # Elsewhere the processes of a sandbox share one group.
                        _send(self.main, number, group=sys.platform == "linux")

    def clean(self) -> None:
        """Kill until no descendant of the command is left."""
        if self.code is None or sys.platform != "linux":
            _send(self.main, group=True)
        while self._reap():
            if sys.platform == "linux":
                left = _descendants()
                for pid in left:
                    _send(pid)
            else:
                left = {self.main}
                _send(self.main, group=True)
            if left:
                # One of them ends, so this returns; then look for more.
                try:
                    self._note(*os.waitpid(-1, 0))
                except ChildProcessError:
                    return
            else:
                time.sleep(0.001)


def keep(descriptors: list[int], run: Run) -> None:
    """Keep one command from its start to its end."""
    control, *stdio = descriptors
    stdin, stdout, stderr = stdio
    os.setsid()
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wakeup, trigger = os.pipe()
    os.set_blocking(trigger, False)
    signal.set_wakeup_fd(trigger, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *_FORWARDED):
        signal.signal(number, lambda *_: None)
    body = _read_exactly(control, int(_read_exactly(control, 8)))
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become(body, (stdin, stdout, stderr), control, keeper, run)
        finally:
            os._exit(126)
    for descriptor in (stdin, stdout, stderr):
        os.close(descriptor)
    guard = Keeper(control, pid)
    try:
        os.write(control, b"started %d %d\n" % (pid, keeper))
    except OSError:
        guard.killed = True
    guard.watch(wakeup)
    killed = guard.code is None
    if body[:1] == b"1" and not killed and sys.platform == "linux":
        try:
            os.write(control, b"exit %d 0\n" % (guard.code or 0))
            guard.watch(wakeup, descendants=True)
        except OSError:
            # The server is gone.
            pass
    guard.clean()
    os.write(control, b"exit %d %d\n" % (137 if guard.code is None else guard.code, killed))


def nurse(nursery: socket.socket, run: Run = execute) -> None:
    """Fork a keeper for each message, until the server closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The kernel reaps ended keepers.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if sys.platform == "linux":
        # A stopped nursery would not see the end of its socket.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    while True:
        message, descriptors, _, _ = socket.recv_fds(nursery, 1, 4)
        if not message:
            return
        if os.fork() == 0:
            try:
                nursery.close()
                keep(descriptors, run)
            except (OSError, EOFError):
                # The server is gone.
                pass
            finally:
                # Skip the interpreter's shutdown: the server waits for this process.
                os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


if __name__ == "__main__":
    nurse(socket.socket(fileno=int(sys.argv[1])))
