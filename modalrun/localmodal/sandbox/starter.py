"""Make the root of a sandbox and start its process, warm and isolated where that can be."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

from modalrun.localmodal.sandbox import rootfs
from modalrun.localmodal.sandbox.isolation import Isolation
from modalrun.localmodal.sandbox.live import LiveSandbox
from modalrun.localmodal.sandbox.nursery import Nursery
from modalrun.localmodal.sandbox.process import Command, SandboxProcess, start_one
from modalrun.localmodal.sandbox.warm_nursery import WarmNursery
from modalrun.localmodal.storage.logstore import LogStore
from modalrun.localmodal.storage.paths import StateDir


class Starter:
    """Starts the processes of sandboxes.

    Attributes:
        isolation: What sandboxes see of this machine.
        nursery: The process that keepers are forked from.
        warm: The one that has modules in memory.
        open_files: The soft limit of file descriptors in sandboxes; 0 for that of the server.
    """

    def __init__(self, state: StateDir, logs: LogStore, *, isolated: bool) -> None:
        self._state = state
        self._logs = logs
        self.isolation = Isolation(state, wanted=isolated)
        self.nursery = Nursery(state.root)
        self.warm = WarmNursery(state.root)
        self.open_files = 0

    async def begin(self) -> None:
        """Start the nursery, and find out how it can isolate sandboxes."""
        self.nursery.start()
        await self.isolation.probe(self.nursery)

    async def start(self, sandbox: LiveSandbox) -> SandboxProcess | None:
        """Start a sandbox; return None if it must end before.

        Raises:
            OSError, ValueError: It can't be started.
        """
        record, launch = sandbox.record, sandbox.launch
        folder = self._state.sandbox(record.id)
        await launch.volumes.open()
        parts = (folder, launch.files, launch.volumes.folders, record.workdir)
        prefix = rootfs.python_prefix(launch.recipe, launch.variables)
        build = partial(rootfs.build, *parts, prefix=prefix, isolated=self.isolation.works)
        if launch.files:
            await asyncio.to_thread(build)
        else:
            build()
        command = Command(
            argv=record.command,
            # Modal documents the other variables for Functions only (docs, read 2026-11-27).
            env={"MODAL_SANDBOX_ID": record.id},
            cwd=rootfs.inside(Path("/"), record.workdir),
            open_files=self.open_files,
            terminal=launch.terminal,
        )
        command = self.isolation.command(command, folder / "root", launch)
        warm = await self.warm.nursery_for(command, sandbox.must_end)

        def new() -> SandboxProcess:
            sandbox.process = SandboxProcess(
                lambda fd, data: self._logs.append(record.id, fd, data),
                must_wait=lambda: self._logs.is_full(record.id),
            )
            return sandbox.process

        nurseries = (*filter(None, [warm]), self.nursery, self.nursery)
        process = await start_one(nurseries, command, new, sandbox.must_end)
        if process is not None:
            inside = process.namespaces
            sandbox.command = replace(command, terminal=None, view=None, inside=inside)
        return process

    def close(self) -> None:
        """End the nurseries."""
        self.nursery.close()
        self.warm.close()
