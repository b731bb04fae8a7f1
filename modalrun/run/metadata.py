"""Encode what ZenML stores with a run and its steps, so that others find their sandboxes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from modalrun.run.run_plan import Target

PREFIX = "modalrun_"
"""Prefix of each field in the keys of ZenML's metadata."""

M = TypeVar("M", "RunMetadata", "StepMetadata", "Announced")


@dataclass(frozen=True)
class RunMetadata:
    """Metadata of a run, stored as soon as its run sandbox exists.

    Attributes:
        target: "modal" or "local".
        mode: "pipeline" or "per_step".
        app: The name of the Modal app.
        app_id: Its id.
        sandbox_id: The run sandbox.
        sandbox_url: Its page on Modal's dashboard, where there is one.
        timeout: The run sandbox's timeout in seconds.
        environment: The Modal environment; None for the default one.
        gpu: The run sandbox's GPU; None for a CPU sandbox.
        cpu: Its CPU cores; None for Modal's default.
        memory: Its memory in MiB; None for Modal's default.
        regions: The regions requested, separated by commas; None for any.
        workspace: The Modal workspace that the settings name, if any.
        stop_requested: Whether the driver was asked to stop; running steps may finish.
        earlier: The run sandboxes before this one, oldest first, separated by commas.
    """

    target: Target
    mode: str
    app: str
    app_id: str
    sandbox_id: str
    timeout: int
    environment: str | None = None
    sandbox_url: str | None = None
    gpu: str | None = None
    cpu: float | None = None
    memory: int | None = None
    regions: str | None = None
    workspace: str | None = None
    stop_requested: bool = False
    earlier: str | None = None

    @property
    def earlier_sandboxes(self) -> tuple[str, ...]:
        """Modal's ids of the run sandboxes before this one, oldest first."""
        return tuple(self.earlier.split(",")) if self.earlier else ()


@dataclass(frozen=True)
class Announced:
    """Metadata of a run that has no run sandbox: not yet, or since ZenML's cache has all its steps.

    `RunMetadata` has the same fields and more.

    Attributes:
        target: "modal" or "local".
        mode: "pipeline" or "per_step".
        app: The name of the Modal app.
        environment: The Modal environment; None for the default one.
        withdrawn: Whether the submitting process has cancelled the run and all it created.
    """

    target: Target
    mode: str
    app: str
    environment: str | None = None
    withdrawn: bool = False


@dataclass(frozen=True)
class StepMetadata:
    """Metadata of a step's attempt in `per_step` mode.

    Attributes:
        sandbox_id: Its sandbox.
        gpu: The sandbox's GPU; None for a CPU sandbox.
        cpu: Its CPU cores; None for Modal's default.
        memory: Its memory in MiB; None for Modal's default.
        regions: The regions requested, separated by commas; None for any.
        exit_code: The sandbox's exit code, if the driver saw its end.
        exit_reason: Why it ended, if not "completed".
        infrastructure_retries: How often infrastructure failures have restarted it.
    """

    sandbox_id: str
    gpu: str | None = None
    cpu: float | None = None
    memory: int | None = None
    regions: str | None = None
    exit_code: int | None = None
    exit_reason: str | None = None
    infrastructure_retries: int | None = None


def to_metadata(metadata: RunMetadata | StepMetadata | Announced) -> dict[str, Any]:
    """Encode metadata for ZenML; None values are left out, since ZenML has none."""
    values = {f.name: getattr(metadata, f.name) for f in fields(metadata)}
    return {f"{PREFIX}{name}": value for name, value in values.items() if value is not None}


def from_metadata(cls: type[M], metadata: Mapping[str, Any]) -> M | None:
    """Decode ZenML's metadata; None where modalrun stored none of this kind."""
    own = {k.removeprefix(PREFIX): v for k, v in metadata.items() if k.startswith(PREFIX)}
    return from_json(cls, own)


def from_json(cls: type[M], values: Mapping[str, Any]) -> M | None:
    """Decode metadata from its fields by name; None if a required one is missing."""
    known = {f.name for f in fields(cls)}
    try:
        return cls(**{name: value for name, value in values.items() if name in known})
    except TypeError:
        return None
