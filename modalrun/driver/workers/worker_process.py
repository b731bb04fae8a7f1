"""Fork a worker of a `pipeline` run, send it requests, read its output, and see how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from modalrun.driver.lines.last_lines import LastLines
from modalrun.driver.lines.step_output import TaggedStream, WorkerStream
from modalrun.driver.processes import death, privileges
from modalrun.driver.processes.messages import MessageSocket
from modalrun.driver.processes.process import die_with_parent
from modalrun.driver.processes.spawn import OWN_SESSION
from modalrun.driver.workers import worker
from modalrun.run import usage_log
from modalrun.run.manifest import Graph
from modalrun.run.reporting import forget_key
from modalrun.run.values import adapter

_VALUES: dict[str, tuple[type, ...]] = {
    "graph": (Graph, worker.StepEnd),
    "run": (worker.StepEnd,),
    "fail": (worker.StepEnd,),
}

_BLOCKED = (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP)


class WorkerDied(Exception):
    """A worker's process has ended before it answered; the message is a sentence.

    Attributes:
        asked: Whether the runner has ended it.
    """

    def __init__(self, reason: str, *, asked: bool) -> None:
        super().__init__(reason)
        self.asked = asked


class WorkerError(Exception):
    """A request has failed; the worker has printed the traceback, and the message is one line."""


class WorkerProcess:
    """A worker, as its runner sees it.

    Attributes:
        pid: Its process id.
        alive: Whether it has not ended.
        begun: Whether the step of the current request has begun.
        used: Whether it has run a step before.
        retired: Whether it is of no more use.
    """

    def __init__(self, targets: tuple[TaggedStream, TaggedStream], private: list[int]) -> None:
        """Fork it.

        Args:
            targets: Where its output goes to.
            private: Descriptors of the runner's that it must not keep.
        """
        ours, theirs = map(MessageSocket, socket.socketpair())
        pipes = (os.pipe(), os.pipe())
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        runner = os.getpid()
        # A signal before the fork has handlers of its own would reach the runner's.
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                reads = [read for read, _ in pipes]
                _become_worker(
                    runner, [write for _, write in pipes], [*private, *reads, ours.fileno()]
                )
                worker.main(theirs)
            finally:
                os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
        theirs.close()
        for _, write in pipes:
            os.close(write)
        self.alive = True
        self.begun = False
        self.used = self.retired = False
        self._asked = False
        self._out_of_memory = death.out_of_memory_kills()
        self._step: str | None = None
        self._token = ""
        self._on_begun: Callable[[], object] | None = None
        self._connection: MessageSocket | None = ours
        self._answer: asyncio.Future[Any] | None = None
        self._ended = asyncio.Event()
        self._last = LastLines()
        self._streams = [
            WorkerStream(read, target, self._last)
            for (read, _), target in zip(pipes, targets, strict=True)
        ]
        asyncio.get_running_loop().add_reader(ours.fileno(), self._receive)

    @property
    def descriptors(self) -> list[int]:
        """The runner's descriptors of this worker."""
        found = [stream.pipe for stream in self._streams]
        if self._connection is not None:
            found.append(self._connection.fileno())
        return [descriptor for descriptor in found if descriptor >= 0]

    async def ask(
        self,
        method: str,
        *arguments: Any,
        step: str | None = None,
        begun: Callable[[], object] | None = None,
    ) -> Any:
        """Send a request and return the answer.

        Args:
            method: Of `worker.Worker`.
            arguments: Of the method.
            step: The step whose output comes once it has begun.
            begun: Called then.

        Raises:
            WorkerDied: Its process has ended.
            WorkerError: The request has failed.
        """
        assert self._answer is None
        self.used = self.used or self.begun
        self._step, self._on_begun, self.begun = step, begun, False
        self._token = secrets.token_hex(8)
        self._answer = asyncio.get_running_loop().create_future()
        try:
            if self._connection is not None:
                with contextlib.suppress(OSError):
                    self._connection.send(worker.Request(method, arguments, self._token))
            else:
                self._fail("it has ended")
            value = await self._answer
            if not isinstance(value, _VALUES.get(method, object)):
                self.retired = True
                raise WorkerError("The answer of the step's process makes no sense.")
            return value
        finally:
            self._answer = None

    async def end(self, grace: float) -> None:
        """Send SIGTERM, and SIGKILL after `grace` seconds; return after its end."""
        self._asked = True
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._ended.wait(), grace)
        except asyncio.TimeoutError:
            self._signal(signal.SIGKILL)
            await self._ended.wait()

    def reap(self) -> None:
        """Look whether the process has ended; call it after SIGCHLD."""
        if not self.alive:
            return
        ended, status, used = os.wait4(self.pid, os.WNOHANG)
        if not ended:
            return
        self.alive = False
        usage_log.add_death(os.environ, self.pid, used)
        # What a failed attempt has left must not run beside the next one.
        if OWN_SESSION:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        # It may have answered before it ended.
        self._receive()
        self.disconnect()
        for stream in self._streams:
            stream.close()
        out_of_memory = death.out_of_memory_kills() > self._out_of_memory
        code = os.waitstatus_to_exitcode(status)
        process = "step's process" if self.begun else "runner's process"
        self._fail(death.describe(process, self.pid, code, os.environ, out_of_memory=out_of_memory))
        self._ended.set()

    def _receive(self) -> None:
        if self._connection is None:
            return
        try:
            for message in self._connection.received():
                self._take(adapter(worker.Answer).validate_json(message))
        except (EOFError, OSError, ValidationError):
            # Its end follows; also if user code has closed or spoiled the connection, since it
            # can't answer.
            self.disconnect()

    def _take(self, message: worker.Answer) -> None:
        if message.token != self._token:
            return
        for stream in self._streams:
            stream.drain()
        if message.begun:
            self.begun = True
            self._tag(self._step)
            if self._connection is not None:
                with contextlib.suppress(OSError):
                    self._connection.send(worker.Request(""))
            if self._on_begun is not None:
                self._on_begun()
            return
        self._tag(None)
        # What has failed in it may fail again.
        self.retired = message.last or message.error is not None
        if self._answer is None or self._answer.done():
            return
        if message.error is not None:
            self._answer.set_exception(WorkerError(message.error))
        else:
            self._answer.set_result(message.value)

    def last_lines(self) -> list[str]:
        """Return the last lines that its step has printed."""
        return self._last.lines()

    def _tag(self, step: str | None) -> None:
        if step is not None:
            self._last.clear()
        for stream in self._streams:
            stream.step = step

    def _fail(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(WorkerDied(reason, asked=self._asked))

    def disconnect(self) -> None:
        """Send no more requests; an idle worker then ends."""
        if self._connection is not None:
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            self._connection.close()
            self._connection = None

    def _signal(self, number: int) -> None:
        # It is reaped here alone, so its id can't be another process's.
        if self.alive:
            os.kill(self.pid, number)


def _become_worker(runner: int, output: list[int], close: list[int]) -> None:
    """Turn the fork of a runner into a process of its own."""
    forget_key()
    privileges.show_process()
    signal.set_wakeup_fd(-1)
    for blocked in _BLOCKED:
        signal.signal(blocked, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if OWN_SESSION:
        # A signal that user code sends to its process group must stay below this process.
        os.setsid()
        # The runner has no threads: the signal comes at the end of its process.
        die_with_parent()
        if os.getppid() != runner:
            os._exit(1)
    asyncio._set_running_loop(None)
    for number, descriptor in enumerate(output, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for descriptor in close:
        os.close(descriptor)
