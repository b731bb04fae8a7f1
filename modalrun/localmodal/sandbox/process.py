"""Start a sandbox's command through a keeper, read its output and receive its exit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modalrun.localmodal.sandbox import keeper
from modalrun.localmodal.sandbox.nursery import Nursery
from modalrun.localmodal.sandbox.view import View
from modalrun.localmodal.storage.logstore import STDERR, STDOUT

log = logging.getLogger(__name__)

ANSWER_LIMIT = 10.0
"""Seconds that a nursery may take to start a command before it is replaced."""

_READ_SIZE = 64 * 1024
_STDIN_LIMIT = 1024 * 1024
_LAST_READS = 32
"""Reads of a pipe at the end of a command: it holds less, unless other processes go on writing."""

_PAUSE = 0.2
"""Seconds between two looks at whether output may be read."""


def future() -> asyncio.Future[Any]:
    """Return a future of the running loop."""
    return asyncio.get_running_loop().create_future()


def settle(event: asyncio.Future[None]) -> None:
    """Let an event happen, unless it has."""
    if not event.done():
        event.set_result(None)


@dataclass(frozen=True)
class Command:
    """A command to run.

    Attributes:
        cwd: Its working folder: in the sandbox if it has a root of its own.
        open_files: The soft limit of file descriptors; 0 keeps it.
        terminal: Rows and columns of its terminal; None for pipes.
        lingers: Whether the processes that it leaves behind go on.
        view: The root to make for it; None for this machine's.
        inside: The `SandboxProcess.namespaces` that it runs in; empty for its own or none.
        network: Whether it has the machine's network.
    """

    argv: list[str]
    env: dict[str, str]
    cwd: Path
    open_files: int = 0
    terminal: tuple[int, int] | None = None
    lingers: bool = False
    view: View | None = None
    inside: tuple[int, ...] = ()
    network: bool = True

    @property
    def kind(self) -> bytes:
        """How the keeper starts it."""
        if self.inside:
            return keeper.INSIDE
        return keeper.PLAIN if self.view is None else keeper.ISOLATED


@dataclass(frozen=True)
class Exit:
    """The end of a command. `code` is None if its keeper was killed."""

    code: int | None
    killed: bool


class SandboxProcess:
    """A command with its keeper and pipes.

    `on_output(descriptor, data)` receives the output in order of arrival. While `must_wait()`, it
    is left in the pipes.

    Attributes:
        ended: Has the exit of the command, whose output has arrived.
        exited: The same once nothing is left of the processes that it started.
        keeper: The id of its keeper, from which all its processes descend.
        namespaces: Descriptors of its own ones, until `release`; empty if it has none.
    """

    def __init__(
        self, on_output: Callable[[int, bytes], None], must_wait: Callable[[], bool]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_output = on_output
        self._must_wait = must_wait
        self._control: socket.socket | None = None
        self._pipes: dict[int, int] = {}
        self._stdin: int | None = None
        self._pending_stdin = bytearray()
        self._stdin_drained = asyncio.Event()
        self._stdin_drained.set()
        self._stdin_eof = self._is_terminal = False
        self._received = b""
        self._exit = Exit(code=None, killed=False)
        self._sending: asyncio.Task[None] | None = None
        self._sent = self._must_end = False
        self.keeper: int | None = None
        self._answered: asyncio.Future[bool] = future()
        self._kind = keeper.PLAIN
        self._pid: int | None = None
        self._problem = ""
        self._handed: list[int] = []
        self.namespaces: tuple[int, ...] = ()
        self.ended: asyncio.Future[Exit] = future()
        self.exited: asyncio.Future[Exit] = future()

    async def start(self, nursery: Nursery, command: Command) -> bool:
        """Start the keeper and the command; kill a nursery that does not answer in time.

        Returns:
            Whether it has started. If not, nothing runs, and another process may be started.

        Raises:
            OSError: The machine lacks descriptors, memory or processes, or the sandbox's root
                cannot be made.
        """
        self._kind = command.kind
        packed = keeper.pack(
            argv=command.argv,
            env=command.env,
            cwd=str(command.cwd),
            open_files=command.open_files,
            view=command.view and asdict(command.view),
            network=command.network,
            lingers=command.lingers,
            terminal=command.terminal,
        )
        ours, theirs = socket.socketpair()
        self._control = ours
        try:
            with contextlib.ExitStack() as inherited:
                inherited.callback(theirs.close)
                stdio = self._open_pipes(inherited)
                try:
                    nursery.fork(self._kind, (theirs.fileno(), *stdio, *command.inside))
                except BlockingIOError:
                    # It has not answered for long.
                    nursery.kill()
        except OSError:
            self._finish()
            raise
        # Another sandbox may restart the nursery meanwhile.
        asked = nursery.process
        ours.setblocking(False)
        self._loop.add_reader(ours, self._receive)
        for number, reader in self._pipes.items():
            os.set_blocking(reader, False)
            self._loop.add_reader(reader, self._on_readable, number)
        assert self._stdin is not None
        os.set_blocking(self._stdin, False)
        self._sending = self._loop.create_task(self._send(ours, packed))
        await asyncio.wait({self._answered}, timeout=ANSWER_LIMIT)
        if not self._answered.done() and asked is not None:
            # This ends the control socket, unless a keeper already has it.
            asked.kill()
        started = await self._answered
        if not started:
            self.release()
        if self._problem:
            raise OSError(self._problem)
        return started

    def release(self) -> None:
        """Close what others need to enter its namespaces."""
        for descriptor in self.namespaces:
            os.close(descriptor)
        self.namespaces = ()

    def _open_pipes(self, inherited: contextlib.ExitStack) -> tuple[int, int, int]:
        """Open pipes; return the command's ends, which `inherited` closes."""
        stdin, self._stdin = os.pipe()
        inherited.callback(os.close, stdin)
        writers = []
        for number in (STDOUT, STDERR):
            self._pipes[number], writer = os.pipe()
            inherited.callback(os.close, writer)
            writers.append(writer)
        return stdin, writers[0], writers[1]

    def _use_terminal(self, descriptor: int) -> None:
        """Read and write a terminal that the keeper has opened, which is the sandbox's."""
        self._close_pipe(STDOUT)
        assert self._stdin is not None
        os.close(self._stdin)
        self._pipes[STDOUT], self._stdin = descriptor, os.dup(descriptor)
        self._is_terminal = True
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._on_readable, STDOUT)

    async def _send(self, control: socket.socket, packed: bytes) -> None:
        with contextlib.suppress(OSError):
            await self._loop.sock_sendall(control, packed)
            self._sent = True
            if self._must_end:
                self.kill()

    def interrupt(self) -> None:
        """Have the keeper send SIGINT to the command's process group, if the command has begun."""
        if self._control is not None and self._sent:
            with contextlib.suppress(OSError):
                self._control.send(bytes([signal.SIGINT]))

    def kill(self) -> None:
        """Ask the keeper to kill the command and its descendants; do not wait."""
        self._must_end = True
        if self._control is None or not self._sent:
            return
        with contextlib.suppress(OSError):
            self._control.send(bytes([signal.SIGKILL]))
        if self.keeper is not None:
            with contextlib.suppress(OSError):
                # Someone may have stopped it.
                os.kill(self.keeper, signal.SIGCONT)

    async def write_stdin(self, data: bytes, *, eof: bool = False) -> None:
        """Send input to the command; wait while more than a megabyte is unread.

        Raises:
            BrokenPipeError: The input was closed or the command has ended.
        """
        if self._stdin is None or self._stdin_eof:
            raise BrokenPipeError("the input of this sandbox is closed")
        self._pending_stdin += data
        if eof and self._is_terminal:
            # The first one may end a line only.
            self._pending_stdin += b"\4\4"
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

    def _on_readable(self, number: int) -> None:
        # What others print after its end is dropped.
        if not self.ended.done() and self._must_wait():
            self._pause(number)
        else:
            self._read(number)

    def _pause(self, number: int) -> None:
        self._loop.remove_reader(self._pipes[number])
        self._loop.call_later(_PAUSE, self._resume, number)

    def _resume(self, number: int) -> None:
        if number in self._pipes:
            self._loop.add_reader(self._pipes[number], self._on_readable, number)

    def _read(self, number: int) -> bool:
        """Read once, so that sandboxes take turns; return whether there was data."""
        try:
            data = os.read(self._pipes[number], _READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data and self._is_terminal and not self.ended.done():
            # Its closing would kill a process that is about to end, and others may open it again.
            self._pause(number)
            return False
        if not data:
            self._close_pipe(number)
            return False
        self._on_output(number, data)
        return True

    def _close_pipe(self, number: int) -> None:
        reader = self._pipes.pop(number, None)
        if reader is not None:
            self._loop.remove_reader(reader)
            os.close(reader)

    def _receive(self) -> None:
        assert self._control is not None
        try:
            data, descriptors, *_ = socket.recv_fds(self._control, 4096, 6)
            self._handed += descriptors
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            event, *words = line.split()
            if event == b"keeper":
                self.keeper = int(words[0])
            elif event == b"terminal":
                self._use_terminal(self._handed.pop(0))
            elif event == b"started":
                self.namespaces, self._handed = tuple(self._handed), []
                self._pid = int(words[0])
                self._answered.set_result(True)
            elif event == b"failed":
                self._problem = os.fsdecode(line.partition(b" ")[2])
            elif event == b"exit":
                self._exit = Exit(code=int(words[0]), killed=words[1] == b"1")
                self._end()
        if not data:
            self._finish()

    def _end(self) -> None:
        """Read what a command that has ended has left in its pipes."""
        if not self.ended.done():
            for number in list(self._pipes):
                for _ in range(_LAST_READS):
                    if not (number in self._pipes and self._read(number)):
                        break
            self.ended.set_result(self._exit)

    def _finish(self) -> None:
        """Read the rest of the output and close what is not needed after the keeper's end."""
        assert self._control is not None
        self._loop.remove_reader(self._control)
        if self._sending is not None:
            self._loop.remove_writer(self._control)
            self._sending.cancel()
        self._control.close()
        self._control = None
        if self._exit.code is None and self._pid is not None and self._kind != keeper.ISOLATED:
            # The keeper was killed. Its command died with it, but its group may live.
            with contextlib.suppress(OSError):
                os.killpg(self._pid, 9)
        self._end()
        if self._kind != keeper.INSIDE:
            # There, what it has left behind goes on and prints.
            for number in list(self._pipes):
                self._close_pipe(number)
        if self._stdin is not None:
            self._loop.remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = None
            self._pending_stdin.clear()
            self._stdin_drained.set()
        if not self._answered.done():
            self._answered.set_result(False)
        self.exited.set_result(self._exit)


async def start_one(
    nurseries: Iterable[Nursery],
    command: Command,
    new: Callable[[], SandboxProcess],
    given_up: asyncio.Future[None],
) -> SandboxProcess | None:
    """Start a command by the first nursery that answers; return None if it is given up before.

    Raises:
        OSError: None answers, or the machine lacks descriptors, memory or processes.
        ValueError: The command holds a NUL.
    """
    for nursery in nurseries:
        if given_up.done():
            return None
        process = new()
        if await process.start(nursery, command):
            return process
        log.warning("the nursery did not start %s", command.argv[0])
    raise OSError("the process that starts sandboxes does not answer")
