"""Define a sandbox as it is planned, carried in the manifest and created. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_CORES = 0.5
DEFAULT_MEMORY_MIB = 1024
"""ZenML's client and the Modal SDK take about 400 MB; Modal's own defaults are 0.125 cores and
128 MiB (modal.com/docs/guide/resources, read 2026-10-09)."""


@dataclass(frozen=True)
class Resources:
    """Hold the GPU, CPU and memory that one sandbox requests.

    Attributes:
        gpus: GPU types with their count as Modal writes them ("A100", "A100:2"), the preferred one
            first: where Modal has none of it, the next is requested. Empty for a CPU sandbox.
        cpu: Physical cores.
        memory: MiB.
        cpu_limit: The most cores that it may use; None for Modal's own limit.
        memory_limit: The most MiB that it may use; None for Modal's own limit.
    """

    gpus: tuple[str, ...] = ()
    cpu: float = DEFAULT_CORES
    memory: int = DEFAULT_MEMORY_MIB
    cpu_limit: float | None = None
    memory_limit: int | None = None

    @property
    def gpu(self) -> str | None:
        """The preferred GPU; None for a CPU sandbox."""
        return next(iter(self.gpus), None)


@dataclass(frozen=True)
class SandboxSpec:
    """Hold everything that `modal.Sandbox.create` needs for one sandbox, except secret values.

    Attributes:
        command: Program and arguments.
        image: Its image: a key of `Plan.images` until that is built, then Modal's id ("im-...").
        resources: GPU, CPU and memory.
        timeout: Seconds until Modal ends it, from its start.
        keeps_entrypoint: Whether an ENTRYPOINT of the image wraps the command.
        gpu_wait: Seconds to wait for each GPU type; None for the default.
        cloud: Cloud provider; None lets Modal choose.
        regions: Regions to choose from; empty lets Modal choose.
        env: Plain environment variables; never secrets.
        secrets: The names of Modal secrets.
        volumes: Modal volumes: name -> absolute path.
        name: Unique among the running sandboxes of its app; set once the run exists.
        tags: Tags that `status` and `stop` find it by; complete once the run exists.
    """

    command: tuple[str, ...]
    image: str
    resources: Resources
    timeout: int
    keeps_entrypoint: bool = False
    gpu_wait: int | None = None
    cloud: str | None = None
    regions: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    volumes: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
