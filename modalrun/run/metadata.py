"""Encode what ZenML stores with a run and its steps, so that others find their sandboxes. Pure.

Whoever may write in the ZenML project can change it, so each value is checked where it is read. A
wrong one is taken as unknown.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from pydantic import ValidationError

from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.run_plan import Mode, Target
from modalrun.run.values import (
    CHECKED,
    LONGEST_TEXT,
    AppId,
    Commit,
    Cores,
    ExitCode,
    Flag,
    Link,
    ModalName,
    Moment,
    Moments,
    Number,
    RunId,
    SandboxId,
    SandboxIds,
    Seconds,
    StepName,
    Text,
    Word,
    adapter,
)
from modalrun.util.text import one_line

PREFIX = "modalrun_"
"""Prefix of modalrun's keys in ZenML's metadata, and of each field of a run's."""

STEP_KEY = f"{PREFIX}sandbox"
"""The key that holds all fields of a step's: ZenML commits each key by itself, which takes long."""

TRIES_KEY = f"{PREFIX}tries"
"""Of the last record of a step: how many attempts there were. Later records are retries that
did not come."""

_STORED_WAITS = 100
_STORED_HINTS, _LONGEST_HINT = 30, 1_000

M = TypeVar("M", "RunMetadata", "StepMetadata", "Announced", "RunEnd")


@dataclass(frozen=True)
class RunMetadata:
    """Metadata of a run, stored as soon as its run sandbox exists.

    Attributes:
        target: "modal" or "local".
        mode: "pipeline" or "per_step".
        app: The name of the Modal app.
        sandbox_url: Its page on Modal's dashboard, where there is one.
        timeout: The run sandbox's timeout in seconds; 0 if it is not known.
        environment: The Modal environment; None for the default one.
        gpu: The run sandbox's GPU; None for a CPU sandbox.
        cpu: Its CPU cores; None if not known.
        memory: Its memory in MiB; None if not known.
        regions: The regions requested, separated by commas; None for any.
        workspace: The Modal workspace that the settings name, if any.
        stop_requested: Whether the driver was asked to stop; running steps may finish.
        earlier: The run sandboxes before this one, oldest first, separated by commas.
        step_waits: What steps wait for ("waiting for H100"), by their names; `per_step` mode only.
        rerun_of: The earlier run that it reruns.
        rerun_by: The last run that reruns it.
        hints: What helps steps that have failed, by their names: what the submission found out.
        requested: When Modal was asked for the run sandbox, in seconds since the epoch.
        created: When it had created it.
        resumes: When Modal was asked for each run sandbox after the first, oldest first.
        commit: The Git commit that was checked out at the source root when it was submitted.
    """

    __pydantic_config__ = CHECKED

    target: Target
    mode: Mode
    app: ModalName
    app_id: AppId
    sandbox_id: SandboxId
    timeout: Number = 0
    environment: ModalName | None = None
    sandbox_url: Link | None = None
    gpu: Word | None = None
    cpu: Cores | None = None
    memory: Number | None = None
    regions: Word | None = None
    workspace: Word | None = None
    stop_requested: Flag = False
    earlier: SandboxIds | None = None
    step_waits: dict[StepName, Text] | None = None
    rerun_of: RunId | None = None
    rerun_by: RunId | None = None
    hints: dict[StepName, Text] | None = None
    requested: Moment | None = None
    created: Moment | None = None
    resumes: Moments | None = None
    commit: Commit | None = None

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
        waiting: What it waits for ("waiting for H100, next: A100"); None, or empty, for nothing.
        exit_code: The exit code of a submission that could not create the sandbox.
    """

    __pydantic_config__ = CHECKED

    target: Target
    mode: Mode
    app: ModalName
    environment: ModalName | None = None
    withdrawn: Flag = False
    waiting: Text | None = None
    exit_code: ExitCode | None = None


@dataclass(frozen=True)
class RunEnd:
    """Metadata of the end of a run, also of one that never had a sandbox.

    Attributes:
        ended: When the last step of a failed run had ended, in seconds since the epoch.
        lost_at: The end of a run that was lost, as its steps' last heartbeats suggest.
    """

    __pydantic_config__ = CHECKED

    ended: Moment | None = None
    lost_at: Moment | None = None


@dataclass(frozen=True)
class StepMetadata:
    """Metadata of a step's attempt in `per_step` mode.

    Attributes:
        gpu: The sandbox's GPU; None for a CPU sandbox.
        cpu: Its CPU cores; None if not known.
        memory: Its memory in MiB; None if not known.
        regions: The regions requested, separated by commas; None for any.
        exit_code: The sandbox's exit code, if the driver saw its end.
        exit_reason: Why it ended, if not "completed".
        infrastructure_retries: How often infrastructure failures have restarted it.
        idle: Seconds for which its sandbox was kept warm before it.
        lost: When the attempt's first sandbox was asked for, if that was lost, in seconds since the
            epoch.
        requested: When its sandbox was asked for.
        started: When the first process in the sandbox began, or took the order for the step.
        begun: When its own process began with the step.
    """

    __pydantic_config__ = CHECKED

    sandbox_id: SandboxId
    gpu: Word | None = None
    cpu: Cores | None = None
    memory: Number | None = None
    regions: Word | None = None
    exit_code: ExitCode | None = None
    exit_reason: Text | None = None
    infrastructure_retries: Number | None = None
    idle: Seconds | None = None
    lost: Moment | None = None
    requested: Moment | None = None
    started: Moment | None = None
    begun: Moment | None = None

    def over(self, earlier: StepMetadata | None) -> StepMetadata:
        """Return this with what only `earlier` knows, of an earlier sandbox or moment."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        known = {name: value for name, value in known.items() if value is not None}
        return replace(earlier, **known) if earlier is not None else self


def to_metadata(metadata: RunMetadata | StepMetadata | Announced) -> dict[str, Any]:
    """Encode metadata for ZenML; None values are left out, since ZenML has none."""
    if isinstance(metadata, StepMetadata) and metadata.exit_reason is not None:
        metadata = replace(metadata, exit_reason=one_line(metadata.exit_reason, LONGEST_TEXT))
    values = {f.name: getattr(metadata, f.name) for f in fields(metadata)}
    known = {name: value for name, value in values.items() if value is not None}
    if isinstance(metadata, StepMetadata):
        return {STEP_KEY: known}
    return {f"{PREFIX}{name}": value for name, value in known.items()}


def found_metadata(metadata: RunMetadata) -> dict[str, str]:
    """Encode a run sandbox that was found, not created: what its run's `Announced` lacks."""
    return {f"{PREFIX}app_id": metadata.app_id, f"{PREFIX}sandbox_id": metadata.sandbox_id}


def waiting_metadata(wait: CapacityWait | None) -> dict[str, str]:
    """Encode what the submission of a run waits for, as `Announced` holds it."""
    return {f"{PREFIX}waiting": wait.text() if wait else ""}


def not_created_metadata(exit_code: int) -> dict[str, int]:
    """Encode how a submission that could not create the sandbox ended, as `Announced` holds it."""
    return {f"{PREFIX}exit_code": exit_code}


def step_waits_metadata(waits: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Encode what steps wait for, as `RunMetadata` holds it; no more than ZenML can store."""
    return {f"{PREFIX}step_waits": dict(itertools.islice(waits.items(), _STORED_WAITS))}


def hints_metadata(hints: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Encode what helps steps that have failed, as `RunMetadata` holds it."""
    first = itertools.islice(hints.items(), _STORED_HINTS)
    return {f"{PREFIX}hints": {step: one_line(text, _LONGEST_HINT) for step, text in first}}


def from_metadata(cls: type[M], metadata: Mapping[str, Any]) -> M | None:
    """Decode ZenML's metadata; None where modalrun stored none of this kind."""
    if cls is StepMetadata:
        stored = metadata.get(STEP_KEY)
        return from_json(cls, stored) if isinstance(stored, dict) else None
    own = {k.removeprefix(PREFIX): v for k, v in metadata.items() if k.startswith(PREFIX)}
    return from_json(cls, own)


def from_json(cls: type[M], values: Mapping[str, Any]) -> M | None:
    """Decode metadata from its fields by name; None if a required one is missing or wrong."""
    known = {f.name for f in fields(cls)} & values.keys()
    wrong = _wrong(cls, values)
    try:
        return adapter(cls).validate_python({n: values[n] for n in known - wrong})
    except ValidationError:
        return None


def wrong_keys(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of a run's metadata whose values can't be modalrun's."""
    own = {k.removeprefix(PREFIX): v for k, v in metadata.items() if k.startswith(PREFIX)}
    wrong = _wrong(RunMetadata, own) | _wrong(Announced, own) | _wrong(RunEnd, own)
    return tuple(f"{PREFIX}{name}" for name in sorted(wrong))


def _wrong(
    cls: type[RunMetadata | StepMetadata | Announced | RunEnd], values: Mapping[str, Any]
) -> set[str]:
    """Return the fields whose values are wrong."""
    known = {f.name for f in fields(cls)} & values.keys()
    try:
        adapter(cls).validate_python({name: values[name] for name in known})
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return known & {str(one["loc"][0]) for one in found}
    return set()
