"""Hold what is known of a sandbox only while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from modal_proto import api_pb2 as api

from modalrun.localmodal.sandbox.execs import Execs, command_inside
from modalrun.localmodal.sandbox.process import Command, SandboxProcess
from modalrun.localmodal.sandbox.recipe import File, Recipe
from modalrun.localmodal.sandbox.stdin import Stdin
from modalrun.localmodal.sandbox.tunnels import Tunnels, is_used
from modalrun.localmodal.server.faults import SandboxFault
from modalrun.localmodal.storage.store import SandboxRecord
from modalrun.localmodal.storage.volume_trees import MountedVolumes


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


class Idleness:
    """The time since anybody used a sandbox: by stdin, `exec` or a connection to its ports."""

    def __init__(self, limit: float) -> None:
        """
        Args:
            limit: Seconds after which it is idle; 0 for never.
        """
        self._limit = limit
        self._on_idle: Callable[[], None] | None = None
        self._users = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, on_idle: Callable[[], None]) -> None:
        """Count from now on; call `on_idle` once it is idle."""
        self._on_idle = on_idle
        self.touch()

    def touch(self) -> None:
        """Count from the start."""
        self.stop()
        if self._limit and self._on_idle and not self._users:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._limit, self._on_idle)

    def stop(self) -> None:
        """Stop counting."""
        if self._timer is not None:
            self._timer.cancel()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count nothing meanwhile."""
        self._users += 1
        self.stop()
        try:
            yield
        finally:
            self._users -= 1
            self.touch()


class LiveSandbox:
    """A sandbox that has not finished.

    Attributes:
        ready: When its readiness probe succeeded, in seconds since 1970.
    """

    def __init__(
        self,
        record: SandboxRecord,
        fault: SandboxFault | None,
        *,
        idleness: Idleness,
        execs: Execs,
        tunnels: Tunnels,
        probe: api.Probe | None,
        volumes: MountedVolumes,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.idleness = idleness
        self.tunnels = tunnels
        self.probe = probe
        self._probing: asyncio.Task[None] | None = None
        self.ready: asyncio.Future[float] = loop.create_future()
        self.record = record
        self.volumes = volumes
        self.fault = fault
        self.execs = execs
        self.command: Command | None = None
        self.process: SandboxProcess | None = None
        self.end: tuple[int, str] | None = None
        self.must_end = asyncio.Event()
        self.stdin = Stdin()
        self.started: asyncio.Future[SandboxProcess | None] = loop.create_future()
        self.finished: asyncio.Future[SandboxRecord] = loop.create_future()

    def begin(self, on_idle: Callable[[], None], now: Callable[[], float]) -> None:
        """Watch a sandbox whose process has started: whether it is idle, and whether it is ready.

        Args:
            on_idle: Called when nobody has used it for its idle timeout.
            now: The clock.
        """
        self.idleness.begin(on_idle)
        if self.probe is not None:
            self._probing = asyncio.create_task(self._wait_until_ready(now))

    def close(self) -> None:
        """Stop watching, and close its ports."""
        self.idleness.stop()
        self.tunnels.close()
        if self._probing is not None:
            self._probing.cancel()

    async def _wait_until_ready(self, now: Callable[[], float]) -> None:
        """Try the readiness probe again and again until it succeeds, and note when."""
        probe, command = self.probe, self.command
        assert probe is not None and command is not None
        while not await self._is_ready(probe, command):
            await asyncio.sleep((probe.interval_ms or 100) / 1000)
        self.ready.set_result(now())

    async def _is_ready(self, probe: api.Probe, command: Command) -> bool:
        if probe.WhichOneof("probe_oneof") == "tcp_port":
            return await asyncio.to_thread(is_used, probe.tcp_port)
        argv = list(probe.exec_command.argv)
        try:
            return await self.execs.run(command_inside(command, argv)) == 0
        except (OSError, ValueError):
            return False
