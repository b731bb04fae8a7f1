"""Run one sandbox's command as its init: forward signals, and kill every process that it leaves.

`python -I -S keeper.py SOCKET STATE` is the nursery: for each message on the socket, which carries
the file descriptors of a sandbox, it forks a keeper. That is twenty times as fast as a new Python.
The nursery ends with its socket, a keeper with its control socket. `ps` shows STATE, the state
folder.

With `ISOLATED` as the message the keeper first becomes the first process of new namespaces
(`namespaces`), with INSIDE it enters those of a sandbox.

The keeper reads from the control socket: the length of the command (8 digits), the command, and
later the number of each signal, as a byte. It forwards signals, also those that it gets itself, to
the process group of the command, as `dumb-init` does in a V1 sandbox of Modal (modal-client issue
3992, read 2026-11-27). SIGKILL kills the command and all its descendants; so does the end of the
socket, which means that the server has died. The keeper writes `keeper PID`, its process id, then
`started PID` with that of the command, or `failed REASON`, and `exit CODE KILLED` when the command
and all its descendants have ended. A command that `lingers`, as those of `exec` do, leaves its
descendants running: the keeper writes the exit at the end of the command, and ends with the last
descendant.

With ISOLATED the kernel kills whatever is left in the namespace, with INSIDE it is left to the
sandbox's end. With PLAIN on Linux the keeper is a child subreaper and so finds orphans, even after
setsid. Elsewhere it kills the process group only. Every sandbox has this module in memory, so it
imports very little.
"""

# ruff: noqa: PTH118, PTH120, PTH123, PTH208, SIM105 - pathlib and contextlib would make it larger.
from __future__ import annotations

import ctypes
import importlib.util
import marshal
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

PLAIN, ISOLATED, INSIDE = b"p", b"i", b"e"
"""Where the command runs: beside the server, in namespaces of its own, in those of a sandbox."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_FORWARDED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT),
    *(signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2),
)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def pack(**command: Any) -> bytes:
    """Encode a command for the keeper: argv, env, cwd, open_files, view, network and lingers.

    ValueError for a NUL in one.
    """
    texts = [*command["argv"], *command["env"], *command["env"].values(), command["cwd"]]
    if any("\0" in text for text in texts):
        raise ValueError("a NUL in the command or in its environment")
    body = marshal.dumps(command)
    return b"%08d" % len(body) + body


def load_sibling(name: str) -> ModuleType:
    """Load a module from its file beside this one, because a nursery cannot import modalrun."""
    path = os.path.join(os.path.dirname(__file__), f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"_modalrun_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def _become(
    command: dict[str, Any], descriptors: list[int], parent: int, run: Run, confine: Any
) -> None:
    """Turn the forked child into the command, or print the reason of a failure."""
    argv, env, open_files = command["argv"], command["env"], command["open_files"]
    os.setsid()
    for number, descriptor in enumerate(descriptors[1:]):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)
    if os.isatty(0):
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(137)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # The command would inherit the signals that Python ignores.
        if signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    os.umask(0o022)
    if open_files:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, hard))
    code, what = 126, f"The working folder {command['cwd']}"
    try:
        if confine is not None:
            confine()
        os.chdir(command["cwd"])
        what = argv[0] or "The empty command"
        run(argv, env)
    except FileNotFoundError as error:
        code, reason = 127, error.strerror
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
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
    found, more = set[int](), {os.getpid()}
    while more:
        found |= more
        more = {pid for pid, parent in parents.items() if parent in found} - found
    return found - {os.getpid()}


def _send(pid: int, number: int = signal.SIGKILL, *, group: bool = False) -> None:
    try:
        (os.killpg if group else os.kill)(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


class Keeper:
    """The keeper of one command. `code` is the command's exit code."""

    def __init__(self, kind: bytes, control: int, main: int) -> None:
        self.kind = kind
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
        """Kill until no descendant of the command is left, but for those INSIDE a sandbox."""
        if self.code is None or sys.platform != "linux":
            _send(self.main, group=True)
        while self._reap():
            if self.kind == ISOLATED:
                # Every other process of the namespace, also one that another keeper has sent.
                _send(-1)
                left = {self.main}
            elif sys.platform == "linux" and self.kind == PLAIN:
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


def _take_place(
    kind: bytes,
    control: int,
    others: list[int],
    namespaces: Any,
    nursery: socket.socket | None,
) -> dict[str, Any]:
    """Go to where the command runs, and return it. Raises OSError, EOFError."""
    if nursery is not None:
        namespaces.own_user(nursery)
        nursery.close()
    body = _read_exactly(control, int(_read_exactly(control, 8)))
    command: dict[str, Any] = marshal.loads(body)  # noqa: S302 (the server's)
    if kind == ISOLATED:
        namespaces.separate(network=command["network"])
        _become_first(control)
        namespaces.hide()
        namespaces.build(command["view"])
    else:
        os.write(control, b"keeper %d\n" % os.getpid())
    if kind == INSIDE:
        namespaces.enter(others[3:])
        del others[3:]
    return command


def keep(
    kind: bytes, descriptors: list[int], run: Run, namespaces: Any, nursery: socket.socket | None
) -> None:
    """Keep one command from its start to its end.

    Args:
        descriptors: The control socket, the standard streams, and with INSIDE the namespaces.
        nursery: The socket that `namespaces.own_user` needs, with ISOLATED.
    """
    control, *others = descriptors
    os.setsid()
    try:
        command = _take_place(kind, control, others, namespaces, nursery)
    except ConnectionError:
        # The nursery was killed, as one that is slow: without an answer another one is asked.
        return
    except OSError as error:
        os.write(control, b"failed %s\n" % os.fsencode(error.strerror or str(error)))
        return
    if command["terminal"]:
        others = _open_terminal(control, others, command["terminal"])
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wakeup, trigger = os.pipe()
    os.set_blocking(trigger, False)
    signal.set_wakeup_fd(trigger, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *_FORWARDED):
        signal.signal(number, lambda *_: None)
    # A parent in another namespace has the process id 0.
    parent = 0 if kind == INSIDE else os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            confine = None if kind == PLAIN else namespaces.confine
            _become(command, [control, *others], parent, run, confine)
        finally:
            os._exit(126)
    for descriptor in others:
        os.close(descriptor)
    guard = Keeper(kind, control, pid)
    try:
        own = namespaces.descriptors(network=command["network"]) if kind == ISOLATED else []
        _hand(control, b"started %d\n" % pid, own)
    except OSError:
        guard.killed = True
    guard.watch(wakeup)
    killed = guard.code is None
    if command["lingers"] and not killed and sys.platform == "linux":
        try:
            os.write(control, b"exit %d 0\n" % (guard.code or 0))
            guard.watch(wakeup, descendants=True)
        except OSError:
            # The server is gone.
            pass
    guard.clean()
    os.write(control, b"exit %d %d\n" % (137 if guard.code is None else guard.code, killed))


def _hand(control: int, message: bytes, descriptors: list[int]) -> None:
    """Send a message to the server, and descriptors, which are closed here."""
    with socket.socket(fileno=os.dup(control)) as server:
        socket.send_fds(server, [message], descriptors)
    for descriptor in descriptors:
        os.close(descriptor)


def _open_terminal(control: int, pipes: list[int], size: tuple[int, int]) -> list[int]:
    """Replace pipes by a terminal of the sandbox, whose other end the server gets."""
    import fcntl
    import struct
    import termios

    ours, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    _hand(control, b"terminal\n", [ours])
    for descriptor in pipes:
        os.close(descriptor)
    return [terminal, os.dup(terminal), os.dup(terminal)]


def _become_first(control: int) -> None:
    """Continue as the first process of the new namespace, when the server knows its id."""
    told, tell = os.pipe()
    if pid := os.fork():
        os.write(control, b"keeper %d\n" % pid)
        os._exit(0)
    os.close(tell)
    os.read(told, 1)
    os.close(told)
    os.setsid()


def nurse(nursery: socket.socket, run: Run = execute) -> None:
    """Fork a keeper for each message, until the server closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The kernel reaps ended keepers.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    namespaces: Any = None
    if sys.platform == "linux":
        # A stopped nursery would not see the end of its socket.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # An isolated keeper loses its parent; it is reaped here, as the others are.
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        namespaces = load_sibling("namespaces")
    while True:
        kind, descriptors, _, _ = socket.recv_fds(nursery, 1, 9)
        if not kind:
            return
        pair = socket.socketpair() if kind == ISOLATED else None
        pid = os.fork()
        if pid == 0:
            try:
                nursery.close()
                if pair:
                    pair[0].close()
                keep(kind, descriptors, run, namespaces, pair and pair[1])
            except (OSError, EOFError):
                # The server is gone.
                pass
            finally:
                # Skip the interpreter's shutdown: the server waits for this process.
                os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        if pair:
            pair[1].close()
            namespaces.map_ids(pair[0], pid)
            pair[0].close()


if __name__ == "__main__":
    nurse(socket.socket(fileno=int(sys.argv[1])))
