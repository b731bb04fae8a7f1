"""What ZenML keeps with a run and its steps, so that others find their sandboxes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from modalrun.run.run_plan import Target

PREFIX = "modalrun_"
"""Before the name of each field, as the key of ZenML's metadata."""

F = TypeVar("F", "RunMetadata", "StepMetadata", "Announced")


@dataclass(frozen=True)
class RunMetadata:
    """Stored with a run as soon as its run sandbox exists.

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
        regions: The regions it was asked for, separated by commas; None for any.
        workspace: The Modal workspace that its settings name; None where they name none.
        stop_requested: Whether somebody has asked its driver to stop: what runs may finish.
        earlier: The run sandboxes that it has had before this one, oldest first, separated by
            commas; None where this is the first.
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
    """Stored with a run whose run sandbox is long in coming, before there are `RunMetadata`.

    Attributes:
        target: "modal" or "local".
        app: The name of the Modal app.
        environment: The Modal environment; None for the default one.
        withdrawn: Whether the process that submitted the run has given it up, with all it created.
    """

    target: Target
    app: str
    environment: str | None = None
    withdrawn: bool = False


@dataclass(frozen=True)
class StepMetadata:
    """Stored with each attempt of a step in `per_step` mode.

    Attributes:
        sandbox_id: Its sandbox.
        gpu: The sandbox's GPU; None for a CPU sandbox.
        cpu: Its CPU cores; None for Modal's default.
        memory: Its memory in MiB; None for Modal's default.
        regions: The regions it was asked for, separated by commas; None for any.
        exit_code: Of the sandbox, where the driver saw its end.
        exit_reason: Why it ended as it did, where that is not "completed".
        infrastructure_retries: How often it was started again for reasons that are not the user's.
    """

    sandbox_id: str
    gpu: str | None = None
    cpu: float | None = None
    memory: int | None = None
    regions: str | None = None
    exit_code: int | None = None
    exit_reason: str | None = None
    infrastructure_retries: int | None = None


def to_metadata(facts: RunMetadata | StepMetadata | Announced) -> dict[str, Any]:
    """Facts as ZenML's metadata; what is None is left out, since ZenML has no such value."""
    values = {f.name: getattr(facts, f.name) for f in fields(facts)}
    return {f"{PREFIX}{name}": value for name, value in values.items() if value is not None}


def from_metadata(cls: type[F], metadata: Mapping[str, Any]) -> F | None:
    """The facts in a run's or a step's metadata; None where modalrun stored none.

    Facts that a newer modalrun has added are passed over.
    """
    return from_json(
        cls,
        {
            name.removeprefix(PREFIX): value
            for name, value in metadata.items()
            if name.startswith(PREFIX)
        },
    )


def from_json(cls: type[F], values: Mapping[str, Any]) -> F | None:
    """Facts from their fields by name, as `dataclasses.asdict` gives them; None if some lack."""
    known = {f.name for f in fields(cls)}
    try:
        return cls(**{name: value for name, value in values.items() if name in known})
    except TypeError:
        return None
