"""The server's end of one keeper: starts it, reads the command's output, learns how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modalrun.localmodal.sandbox import keeper
from modalrun.localmodal.storage.logstore import STDERR, STDOUT

_READ_SIZE = 64 * 1024
_STDIN_LIMIT = 1024 * 1024


@dataclass(frozen=True)
class Command:
    """What to run. `open_files` is the soft limit of file descriptors, 0 to leave it."""

    argv: list[str]
    env: dict[str, str]
    cwd: Path
    open_files: int = 0


@dataclass(frozen=True)
class Exit:
    """How a command ended. `code` is None when its keeper died without a word."""

    code: int | None
    killed: bool


class Process(Protocol):
    """What a nursery's process can be asked; as `subprocess.Popen`."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def wait(self) -> int:
        """Wait for its end."""

    def kill(self) -> None:
        """SIGKILL; nothing if it has ended."""


class Nursery:
    """The process that keepers are forked from. `state` is shown by `ps`."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._socket: socket.socket | None = None
        self._process: Process | None = None

    def start(self) -> None:
        """Start it; it is ready some 30 ms later, and until then requests wait."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", keeper.__file__),
                    *(str(theirs.fileno()), str(self._state)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={},
                cwd="/",
                start_new_session=True,
            )
        self._socket = ours

    def fork(self, descriptors: tuple[int, int, int, int]) -> None:
        """Have a keeper forked. If the nursery was killed, there is a new one. Raises OSError."""
        if self._socket is None or self._process is None or self._process.poll() is not None:
            self.close()
            self.start()
        assert self._socket is not None
        socket.send_fds(self._socket, [b"f"], descriptors)

    def close(self) -> None:
        """End it; keepers live on."""
        if self._socket is not None and self._process is not None:
            self._socket.close()
            self._process.wait()
            self._socket = self._process = None


class SandboxProcess:
    """A command, its keeper and its pipes.

    `on_output(descriptor, data)` gets what the command writes, in the order of arrival; an OSError
    that it raises (a full disk) kills the command and becomes `error`.
    """

    def __init__(self, on_output: Callable[[int, bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_output = on_output
        self._control: socket.socket | None = None
        self._pipes: dict[int, int] = {}
        self._stdin: int | None = None
        self._pending_stdin = bytearray()
        self._stdin_drained = asyncio.Event()
        self._stdin_drained.set()
        self._stdin_eof = False
        self._heard = b""
        self._exit = Exit(code=None, killed=False)
        self.pid: int | None = None
        self.error: OSError | None = None
        self.exited: asyncio.Future[Exit] = self._loop.create_future()

    def start(self, nursery: Nursery, command: Command) -> None:
        """Start the keeper, and through it the command.

        Raises OSError where the machine has no more processes or file descriptors.
        """
        with contextlib.ExitStack() as inherited:
            ours, theirs = socket.socketpair()
            inherited.callback(theirs.close)
            self._control = ours
            stdin_read, self._stdin = os.pipe()
            inherited.callback(os.close, stdin_read)
            writers = []
            for number in (STDOUT, STDERR):
                reader, writer = os.pipe()
                inherited.callback(os.close, writer)
                self._pipes[number] = reader
                writers.append(writer)
            nursery.fork((theirs.fileno(), stdin_read, writers[0], writers[1]))
        ours.sendall(keeper.pack(command.argv, command.env, str(command.cwd), command.open_files))
        ours.setblocking(False)
        self._loop.add_reader(ours, self._hear)
        for number, reader in self._pipes.items():
            os.set_blocking(reader, False)
            self._loop.add_reader(reader, self._read, number)
        os.set_blocking(self._stdin, False)

    def kill(self) -> None:
        """Have the keeper kill the command and all that descends from it. Returns at once."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(b"k")

    async def write_stdin(self, data: bytes, *, eof: bool = False) -> None:
        """Give the command input; waits while it has more than a megabyte unread.

        Raises BrokenPipeError when the input was closed or the command has ended.
        """
        if self._stdin is None or self._stdin_eof:
            raise BrokenPipeError("the input of this sandbox is closed")
        self._pending_stdin += data
        self._stdin_eof = eof
        self._flush_stdin()
        while len(self._pending_stdin) > _STDIN_LIMIT:
            await self._stdin_drained.wait()

    def _flush_stdin(self) -> None:
        stdin = self._stdin
        if stdin is None:
            return
        try:
            while self._pending_stdin:
                written = os.write(stdin, self._pending_stdin[:_READ_SIZE])
                del self._pending_stdin[:written]
        except BlockingIOError:
            self._stdin_drained.clear()
            self._loop.add_writer(stdin, self._flush_stdin)
            return
        except OSError:
            self._pending_stdin.clear()
            self._stdin_eof = True
        self._loop.remove_writer(stdin)
        self._stdin_drained.set()
        if self._stdin_eof:
            os.close(stdin)
            self._stdin = None

    def _read(self, number: int) -> bool:
        """Read once, so that a talkative sandbox takes turns; tells whether there was anything."""
        try:
            data = os.read(self._pipes[number], _READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._close_pipe(number)
            return False
        try:
            self._on_output(number, data)
        except OSError as error:
            self.error = error
            self._close_pipe(number)
            self.kill()
            return False
        return True

    def _close_pipe(self, number: int) -> None:
        reader = self._pipes.pop(number, None)
        if reader is not None:
            self._loop.remove_reader(reader)
            os.close(reader)

    def _hear(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._heard += data
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            word, *numbers = line.split()
            if word == b"started":
                self.pid = int(numbers[0])
            elif word == b"exit":
                self._exit = Exit(code=int(numbers[0]), killed=numbers[1] == b"1")
        if not data:
            self._finish()

    def _finish(self) -> None:
        """The keeper is gone: take what is left in the pipes, then let go of everything."""
        assert self._control is not None
        self._loop.remove_reader(self._control)
        self._control.close()
        self._control = None
        if self._exit.code is None and self.pid is not None:
            # Somebody killed the keeper. Its command died with it; the rest of the group may live.
            with contextlib.suppress(OSError):
                os.killpg(self.pid, 9)
        for number in (STDOUT, STDERR):
            while number in self._pipes and self._read(number):
                pass
            self._close_pipe(number)
        if self._stdin is not None:
            self._loop.remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = None
            self._pending_stdin.clear()
            self._stdin_drained.set()
        if not self.exited.done():
            self.exited.set_result(self._exit)
