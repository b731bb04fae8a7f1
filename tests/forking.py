"""Fork modalrun's commands from a process that has imported ZenML.

The import takes most of a command's time, some 2.5 s of CPU. So a test run imports ZenML once
and forks the commands from that process, like sandboxes of the local Modal server
(`localmodal.sandbox.warm`). Commands with a terminal, with another value of a variable that the
imports read, or of another program start as usual, and with `--cold-commands` all of them do.

`python forking.py SOCKET REQUEST` is the process; it ends with its standard input. The rest is the
side of the tests.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Commands do not have the folder of this file.
    del sys.path[0]

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from modalrun.localmodal.preload import Preload
from modalrun.localmodal.sandbox import warm
from modalrun.localmodal.server_lock import is_locked, start_lock
from modalrun.localmodal.storage.paths import StateDir
from modalrun.run.zenml_modules import ZENML_MODULES
from modalrun.submit.preload import PRELOAD

SET_BEFORE_IMPORTS = {"ZENML_LOGGING_VERBOSITY": "WARN", "ZENML_LOGGING_COLORS_DISABLED": "true"}
"""What a command sets for itself before it imports ZenML (`modalrun.submit.prepare`)."""

COMMANDS = Preload(
    modules=(
        *ZENML_MODULES,
        "modal",
        *("modalrun.cli", "modalrun.submit.submission", "modalrun.control.stop"),
    ),
    programs=("modalrun", "ask_zenml"),
    env=SET_BEFORE_IMPORTS,
    # The SDK finds its configuration file by HOME and the last one; `Forge` looks into the file.
    late=(*PRELOAD.late, *SET_BEFORE_IMPORTS, "MODAL_CONFIG_PATH"),
)
SERVERS = Preload(
    modules=("modalrun.localmodal.local_server",), programs=("modalrun.localmodal",), late=("HOME",)
)

OPTIONS = {"MODALRUN_LOCAL_ISOLATED_PYTHON", "MODALRUN_LOCAL_LENIENT", "MODALRUN_LOCAL_UNISOLATED"}
"""The variables from which the launcher makes options of a server, or a warning."""


def command(request: Preload, path: Path) -> list[str]:
    """Return the command of the process for a request, which listens at a path."""
    return [sys.executable, __file__, str(path), json.dumps(request.to_json())]


class Forked:
    """A process that is not our child, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, control: TextIO) -> None:
        self._control = control
        self.pid = int(self._control.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code if it has ended; negative: the signal that ended it."""
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        code = self._wait(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process."""
        self.send_signal(signal.SIGKILL)

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._control, select.POLLIN)
            if poll.poll(None if timeout is None else timeout * 1000):
                self.returncode = int(self._control.readline())
                self._control.close()
        return self.returncode


class Forge:
    """Starts the commands of a test run.

    Args:
        commands: Where the process for `COMMANDS` listens. It imports first; a command that suits
            waits for that.
        servers: The same for `SERVERS`.
    """

    def __init__(self, commands: Path, servers: Path) -> None:
        # A server is also a program of `COMMANDS`.
        self._places = ((SERVERS, servers), (COMMANDS, commands))

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        streams: tuple[int, int],
    ) -> Forked | None:
        """Start a command without input; return None for one that must start cold.

        Args:
            argv: The command.
            env: Its whole environment.
            cwd: Its working folder.
            streams: Its standard output and standard error, which are pipes.
        """
        if SET_BEFORE_IMPORTS.keys() & env.keys() or "--debug" in argv or _configures_modal(env):
            return None
        suiting = (
            place
            for place in self._places
            if warm.is_program(argv, env, sys.executable, place[0].programs)
        )
        if (place := next(suiting, None)) is None:
            return None
        request, path = place
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            control = connection.makefile("r")
            found = json.loads(control.readline())
            assert found["problem"] is None, found
            known = warm.Warm(sys.executable, request.programs, (), found["values"])
            if not known.suits(argv, env):
                control.close()
                return None
            socket.send_fds(connection, [b" "], streams)
            message = {"argv": list(argv), "env": dict(env), "cwd": str(cwd)}
            connection.sendall(json.dumps(message).encode() + b"\n")
        return Forked(control)


def start(
    forge: Forge | None,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    streams: tuple[int, int],
) -> Forked | subprocess.Popen[bytes]:
    """Start a command without input, from the forge if possible."""
    process = forge and forge.start(argv, env, cwd, streams)
    return process or subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=streams[0],
        stderr=streams[1],
        cwd=cwd,
        env=env,
        start_new_session=True,
    )


def serve(forge: Forge | None, folder: Path, env: Mapping[str, str], idle_timeout: float) -> None:
    """Start a local Modal server from the forge if possible; else the launcher has to do it.

    Args:
        folder: Its state folder.
        env: Its whole environment.
        idle_timeout: As for the launcher.
    """
    state = StateDir(folder)
    if forge is None or OPTIONS & env.keys() or is_locked(state):
        return
    state.create()
    command = [sys.executable, "-m", "modalrun.localmodal", "--detach", "--state-dir", str(folder)]
    command += ["--idle-timeout", str(idle_timeout)]
    log = os.open(state.server_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(log, "ab"), start_lock(state):
        process = forge.start(command, env, Path("/"), (log, log))
        if process is not None:
            assert process.wait() == 0, state.server_log.read_text()
            # The launcher would start another one until then.
            until = time.monotonic() + 60
            while not is_locked(state):
                assert time.monotonic() < until, state.server_log.read_text()
                time.sleep(0.002)


def _configures_modal(env: Mapping[str, str]) -> bool:
    """Return whether Modal's SDK finds a configuration file, which it reads at its import."""
    path = Path(env.get("MODAL_CONFIG_PATH") or Path(env["HOME"]) / ".modal.toml")
    return path.exists() and path.stat().st_size > 0


def _become(command: Mapping[str, Any], known: warm.Warm, streams: Sequence[int]) -> NoReturn:
    """Turn a forked process into the command."""
    os.setsid()
    stdin = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((stdin, *streams)):
        os.dup2(descriptor, number)
    os.chdir(command["cwd"])
    env = command["env"]
    # Tests find leftover processes by HOME; the end may be cut.
    warm.show_environment({"HOME": env.get("HOME", ""), **env})
    known.become(command["argv"], env)


def _read_line(control: socket.socket) -> bytes:
    text = b""
    while not text.endswith(b"\n"):
        if not (part := control.recv(65536)):
            raise EOFError
        text += part
    return text


def _serve(listener: socket.socket, report: bytes, known: warm.Warm, wakeup: int) -> None:
    """Fork a process per connection and report its end, until the standard input ends."""
    running: dict[int, socket.socket] = {}
    poll = select.poll()
    for descriptor in (0, listener.fileno(), wakeup):
        poll.register(descriptor, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == 0:
                return
            if descriptor == wakeup:
                os.read(wakeup, 512)
                for pid, code in _ended():
                    with running.pop(pid) as control, contextlib.suppress(OSError):
                        control.sendall(b"%d\n" % code)
                continue
            control, _ = listener.accept()
            streams: list[int] = []
            try:
                control.sendall(report)
                streams += socket.recv_fds(control, 1, 2)[1]
                command = json.loads(_read_line(control))
            except (OSError, EOFError):
                # The command does not suit, or its test has ended.
                control.close()
            else:
                pid = os.fork()
                if pid == 0:
                    _become(command, known, streams)
                running[pid] = control
                with contextlib.suppress(OSError):
                    control.sendall(b"%d\n" % pid)
            for stream in streams:
                os.close(stream)


def _ended() -> Iterator[tuple[int, int]]:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            yield pid, os.waitstatus_to_exitcode(status)


def main() -> None:
    """Listen, import, and serve."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(128)
    began = time.monotonic()
    # Like modalrun's commands, because ZenML keeps the streams of its import.
    with contextlib.redirect_stdout(sys.stderr):
        known, problem = warm.preload({**json.loads(sys.argv[2]), "python": sys.executable})
    found = {"problem": problem, "values": dict(known.values), "seconds": time.monotonic() - began}
    wakeup, trigger = os.pipe()
    os.set_blocking(trigger, False)
    signal.set_wakeup_fd(trigger, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warm.own_environment()
    _serve(listener, json.dumps(found).encode() + b"\n", known, wakeup)
    # Skip the teardown of the imported modules.
    os._exit(0)


if __name__ == "__main__":
    main()
