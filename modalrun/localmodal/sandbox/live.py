"""Hold what is known of a sandbox only while it runs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from modal_proto import api_pb2 as api

from modalrun.localmodal.idleness import Idleness
from modalrun.localmodal.sandbox.execs import Execs, command_inside
from modalrun.localmodal.sandbox.process import Command, Exit, SandboxProcess, future
from modalrun.localmodal.sandbox.recipe import File, Recipe
from modalrun.localmodal.sandbox.stdin import Stdin
from modalrun.localmodal.sandbox.tunnels import Tunnels, is_used
from modalrun.localmodal.server.faults import SandboxFault
from modalrun.localmodal.storage.store import SandboxRecord
from modalrun.localmodal.storage.volume_trees import MountedVolumes

_CONNECT = "import socket, sys; socket.create_connection(('localhost', int(sys.argv[1])), 1)"


@dataclass(frozen=True)
class Launch:
    """What a sandbox starts with. Its variables include secrets, so this is never stored.

    Attributes:
        network: Whether it has the machine's network.
    """

    recipe: Recipe
    volumes: MountedVolumes
    files: list[File] = field(default_factory=list)
    terminal: tuple[int, int] | None = None
    ports: Sequence[api.PortSpec] = ()
    probe: api.Probe | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    network: bool = True


@dataclass(eq=False)
class LiveSandbox:
    """A sandbox that has not finished.

    Attributes:
        command: Its main command, for those that `exec` starts like it.
        end: Its status and its exception, if it does not end by itself.
        exit: The end of its main command.
        ready: When its readiness probe succeeded, in seconds since 1970.
    """

    record: SandboxRecord
    launch: Launch
    fault: SandboxFault | None
    idleness: Idleness
    execs: Execs
    tunnels: Tunnels
    command: Command | None = None
    process: SandboxProcess | None = None
    end: tuple[int, str] | None = None
    exit: Exit | None = None
    must_end: asyncio.Future[None] = field(default_factory=future)
    started: asyncio.Future[SandboxProcess | None] = field(default_factory=future)
    ready: asyncio.Future[float] = field(default_factory=future)
    finished: asyncio.Future[SandboxRecord] = field(default_factory=future)
    _probing: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.stdin = Stdin(self.started)

    def begin(self, on_idle: Callable[[], None], now: Callable[[], float]) -> None:
        """Watch a sandbox whose process has started: whether it is idle, and when it is ready."""
        self.idleness.begin(on_idle)
        if self.launch.probe is not None:
            self._probing = asyncio.create_task(self._wait_until_ready(now))

    def close(self) -> None:
        """Stop watching, and close its ports."""
        self.idleness.stop()
        self.tunnels.close()
        if self._probing is not None:
            self._probing.cancel()

    async def _wait_until_ready(self, now: Callable[[], float]) -> None:
        """Try the readiness probe again and again until it succeeds, and note when."""
        probe, command = self.launch.probe, self.command
        assert probe is not None and command is not None
        while not await self._is_ready(probe, command):
            await asyncio.sleep((probe.interval_ms or 100) / 1000)
        self.ready.set_result(now())

    async def _is_ready(self, probe: api.Probe, command: Command) -> bool:
        argv = list(probe.exec_command.argv)
        if not argv and command.network:
            return await asyncio.to_thread(is_used, probe.tcp_port)
        if not argv:
            # The loopback interface is the sandbox's own.
            argv = [sys.executable, "-ISc", _CONNECT, str(probe.tcp_port)]
        try:
            return await self.execs.run(command_inside(command, argv)) == 0
        except (OSError, ValueError):
            return False
