"""Run more commands in a running sandbox (`exec`), until they or the sandbox end."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from modalrun.localmodal.sandbox import fs_tools, rootfs
from modalrun.localmodal.sandbox.nursery import Nursery
from modalrun.localmodal.sandbox.process import Command, SandboxProcess, future, settle, start_one
from modalrun.localmodal.sandbox.stdin import Stdin
from modalrun.localmodal.signals import Signal, follow
from modalrun.localmodal.storage.disk import AppendedFile, Disk
from modalrun.localmodal.storage.logstore import STDERR

UNREAD_LIMIT = 256 * 1024 * 1024
"""Bytes that nobody has read with which a command waits, as if its pipe were full."""

KEPT_READ, KEPT_UNREAD = 20, 500
"""Of how many commands that have ended a sandbox keeps the output, read or not."""

GRACE = 0.3
"""Seconds after its timeout that a command is killed: the SDK reports the timeout itself."""

KILLED = 137


def command_inside(
    main: Command,
    argv: Sequence[str],
    variables: Mapping[str, str] | None = None,
    *,
    workdir: str = "",
    terminal: tuple[int, int] | None = None,
) -> Command:
    """Return a command that runs as the main one does: its environment, and its folder for "".

    Raises:
        ValueError: `workdir` leaves the sandbox.
    """
    # An isolated sandbox has no such variable.
    root = main.env.get(rootfs.ROOT_VARIABLE, "/")
    if argv[0] == fs_tools.PROGRAM:
        words = [sys.executable, "-I", "-S", fs_tools.__file__, root, *argv[1:]]
        # That of the main command may be deleted.
        workdir = "/"
    else:
        words = list(argv) if main.inside else rootfs.arguments(list(argv), Path(root))
    return replace(
        main,
        argv=words,
        env={**main.env, **(variables or {})},
        cwd=rootfs.inside(Path(root), workdir) if workdir else main.cwd,
        terminal=terminal,
        lingers=True,
    )


class Output:
    """A stream of a command, in a file without a name: it can be read again from any offset."""

    def __init__(self, path: Path, disk: Disk) -> None:
        """Create it. Raises OSError."""
        self._file = AppendedFile(path, disk, writable=True)
        path.unlink()
        self._furthest = self._readers = 0
        self._complete = self._closing = False
        self._changed = Signal()

    @property
    def must_wait(self) -> bool:
        """Whether no more may be printed: too much is unread, or the disk is full."""
        self._file.flush()
        return self._file.held > 0 or self._file.size - self._furthest > UNREAD_LIMIT

    def append(self, data: bytes) -> None:
        """Add what the command has printed; drop what others print after its end."""
        if not self._complete:
            self._file.append(data)
            self._changed.fire()

    def finish(self) -> None:
        """Complete it: nothing follows."""
        self._complete = True
        self._changed.fire()

    @property
    def is_read(self) -> bool:
        """Whether somebody has read all of it."""
        return self._complete and self._furthest >= self._file.size

    async def read(self, offset: int) -> AsyncGenerator[bytes, None]:
        """Read chunks from an offset to the end, as they come."""
        self._readers += 1
        chunks = follow(self._file.read, offset, self._changed, lambda: self._complete)
        try:
            async for data in chunks:
                yield data
                offset += len(data)
                self._furthest = max(self._furthest, offset)
        finally:
            await chunks.aclose()
            self._readers -= 1
            if self._closing:
                self.close()

    def close(self) -> None:
        """Delete it, after its last reader."""
        self._closing = True
        if not self._readers:
            self._file.close()


@dataclass(eq=False)
class Exec:
    """A command that runs beside the main one of its sandbox.

    Attributes:
        outputs: The streams that are kept, by descriptor.
        at_end: Called before its end is known; returns why it fails all the same.
        is_closed: Whether its output was deleted.
        started: Its process; None if the sandbox has ended before.
        ended: Its exit code.
        stdin: Its input.
    """

    outputs: Mapping[int, Output]
    at_end: Callable[[], Awaitable[str]] | None = None
    is_closed: bool = False
    started: asyncio.Future[SandboxProcess | None] = field(default_factory=future)
    ended: asyncio.Future[int] = field(default_factory=future)
    _process: SandboxProcess | None = None

    def __post_init__(self) -> None:
        self.stdin = Stdin(self.started)

    async def run(
        self, nursery: Nursery, command: Command, timeout: float, given_up: asyncio.Future[None]
    ) -> None:
        """Run it to its end and to that of all it has started; 0 is no timeout."""
        process = code = None
        try:
            process = await start_one((nursery, nursery), command, self._new_process, given_up)
            self.started.set_result(process)
            if process is not None:
                limit = timeout + GRACE if timeout else None
                if not (await asyncio.wait({process.ended}, timeout=limit))[0]:
                    process.kill()
                code = (await process.ended).code
        except (OSError, ValueError) as error:
            self.started.set_exception(error)
        if self.at_end is not None and (problem := await self.at_end()):
            code = code or 1
            if STDERR in self.outputs:
                self.outputs[STDERR].append(problem.encode())
        for output in self.outputs.values():
            output.finish()
        self.ended.set_result(KILLED if code is None else code)
        if process is not None:
            await process.exited

    def _new_process(self) -> SandboxProcess:
        def keep(descriptor: int, data: bytes) -> None:
            if descriptor in self.outputs:
                self.outputs[descriptor].append(data)

        outputs = self.outputs.values()
        self._process = SandboxProcess(
            keep, must_wait=lambda: any(output.must_wait for output in outputs)
        )
        return self._process

    def read(self, descriptor: int, offset: int) -> AsyncGenerator[bytes, None]:
        """Read a stream from an offset to its end. Raises KeyError if it is not kept."""
        return self.outputs[descriptor].read(offset)

    def kill(self) -> None:
        """Kill it and all it has started; do not wait."""
        if self._process is not None:
            self._process.kill()

    @property
    def is_read(self) -> bool:
        """Whether somebody has read all of its output."""
        return all(output.is_read for output in self.outputs.values())

    def close(self) -> None:
        """Delete its output, not its exit code."""
        if not self.is_closed:
            self.is_closed = True
            for output in self.outputs.values():
                output.close()


@dataclass(eq=False)
class Execs:
    """The further commands of one sandbox, by the ids that the SDK gives them.

    Attributes:
        folder: The sandbox's, for their output.
        busy: A context for the time that a command runs.
    """

    folder: Path
    disk: Disk
    nursery: Nursery
    busy: Callable[[], AbstractContextManager[None]]
    _all: dict[str, Exec] = field(default_factory=dict)
    _running: dict[asyncio.Task[None], Exec] = field(default_factory=dict)
    _closed: asyncio.Future[None] = field(default_factory=future)

    def find(self, exec_id: str) -> Exec | None:
        """Return a command that was started."""
        return self._all.get(exec_id)

    async def start(
        self,
        exec_id: str,
        command: Command,
        *,
        streams: Collection[int],
        timeout: float,
        at_end: Callable[[], Awaitable[str]],
    ) -> bool:
        """Start a command, once for each id: the SDK repeats a call that was not answered.

        Args:
            streams: The descriptors of the output that is kept.
            timeout: Seconds until it is killed; 0 for never.
            at_end: Called before its end is known; returns why it fails all the same.

        Returns:
            False if the sandbox has ended before.

        Raises:
            OSError, ValueError: It can't be started.
        """
        if exec_id not in self._all:
            command = self._with_room(command)
            self._forget_old()
            outputs = {
                number: Output(self.folder / f"output-{number}", self.disk) for number in streams
            }
            new = self._all[exec_id] = Exec(outputs, at_end)
            self._begin(new, self._live(new, command, timeout))
        return await asyncio.shield(self._all[exec_id].started) is not None

    def _with_room(self, command: Command) -> Command:
        """Return a command that can be started with this disk. Raises OSError."""
        try:
            self.disk.require()
        except OSError as error:
            if fs_tools.__file__ not in command.argv:
                raise
            # Of another error than its own the SDK hides the text (`sandbox_fs_utils.py`, 1.6.4).
            failure = {"Fail": {"kind": "Io", "message": self.disk.problem(error) or str(error)}}
            return replace(command, argv=[*command.argv[:-1], json.dumps(failure)])
        return command

    async def _live(self, new: Exec, command: Command, timeout: float) -> None:
        with self.busy():
            await new.run(self.nursery, command, timeout, self._closed)

    async def run(self, command: Command) -> int:
        """Run a command whose output nobody reads; return its exit code."""
        one = Exec({})
        running = self._begin(one, one.run(self.nursery, command, 0.0, self._closed))
        try:
            await asyncio.shield(running)
            return one.ended.result()
        finally:
            one.kill()

    def _begin(self, one: Exec, running: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a command in a task of its own, because the caller may disconnect or be cancelled."""
        task = asyncio.get_running_loop().create_task(running)
        self._running[task] = one
        task.add_done_callback(self._running.pop)
        return task

    def _forget_old(self) -> None:
        ended = [one for one in self._all.values() if one.ended.done() and not one.is_closed]
        for limit, is_read in ((KEPT_READ, True), (KEPT_UNREAD, False)):
            for one in [one for one in ended if one.is_read is is_read][:-limit]:
                one.close()

    async def close(self) -> None:
        """Kill all that runs, and wait until nothing of it is left."""
        settle(self._closed)
        for one in self._running.values():
            one.kill()
        if self._running:
            await asyncio.wait(self._running)
        for one in self._all.values():
            one.close()
