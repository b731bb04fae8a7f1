"""Hold what is known of a sandbox only while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modalrun.localmodal.sandbox.execs import Execs
from modalrun.localmodal.sandbox.process import Command, SandboxProcess
from modalrun.localmodal.sandbox.recipe import File, Recipe
from modalrun.localmodal.sandbox.stdin import Stdin
from modalrun.localmodal.server.faults import SandboxFault
from modalrun.localmodal.storage.store import SandboxRecord


@dataclass(frozen=True)
class Launch:
    """What a sandbox starts with. Its variables include secrets, so this is never stored.

    Attributes:
        read_only: The paths of the volumes that it may not change.
        network: Whether it has the machine's network.
    """

    recipe: Recipe
    files: list[File] = field(default_factory=list)
    volumes: Mapping[str, Path] = field(default_factory=dict)
    read_only: Collection[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    network: bool = True


class LiveSandbox:
    """A sandbox that has not finished."""

    def __init__(self, record: SandboxRecord, fault: SandboxFault | None, execs: Execs) -> None:
        loop = asyncio.get_running_loop()
        self.record = record
        self.fault = fault
        self.execs = execs
        self.command: Command | None = None
        self.process: SandboxProcess | None = None
        self.end: tuple[int, str] | None = None
        self.must_end = asyncio.Event()
        self.stdin = Stdin()
        self.started: asyncio.Future[SandboxProcess | None] = loop.create_future()
        self.finished: asyncio.Future[SandboxRecord] = loop.create_future()
