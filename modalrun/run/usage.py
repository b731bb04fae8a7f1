"""Say what a step has used of CPU, memory and GPU, and encode that for ZenML's metadata. Pure.

Whoever may write in the ZenML project can change it, so it is checked where it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from modalrun.run.metadata import PREFIX
from modalrun.run.values import CHECKED, Cores, Flag, Moment, Number, Seconds, adapter

KEY = f"{PREFIX}usage"
"""The key of a step's usage in the metadata of its record in ZenML."""

MAX_POINTS = 120


class UsagePoint(NamedTuple):
    """What a step has used since the point before, or since its begin.

    Attributes:
        at: Seconds since its begin.
        cores: CPU cores, in the mean.
        memory: Resident memory of its process and all below, the most, in MiB.
        gpu: How busy its GPU was, in percent; the mean of several GPUs. None if not known.
        gpu_memory: The memory used of one GPU, the most, in MiB; None if not known.
    """

    at: Seconds
    cores: Cores
    memory: Number
    gpu: Number | None = None
    gpu_memory: Number | None = None


@dataclass(frozen=True)
class StepUsage:
    """What one attempt at a step has used: its process, and all processes below it.

    Attributes:
        began: When its code began, in seconds since the epoch.
        seconds: For how long it was watched: until its end, or its last sample if it was killed.
        cpu_seconds: CPU time of all its processes, also those that have ended.
        peak_cores: The most CPU cores between two samples.
        peak_memory: The most resident memory, in MiB.
        mean_memory: In the mean over time, in MiB.
        gpu: How busy its GPU was in the mean, in percent; None without a GPU, or if not known.
        peak_gpu_memory: The most memory used of one GPU, in MiB; None if not known.
        gpu_memory: The memory that one GPU has, in MiB; None if not known.
        killed: Whether its process has died: the figures may lack its last seconds.
        points: How it went, at most `MAX_POINTS`, oldest first.
        pid: The id of its process, which inline steps of a dynamic pipeline share; None if unknown.
    """

    __pydantic_config__ = CHECKED

    began: Moment
    seconds: Seconds
    cpu_seconds: Seconds
    peak_cores: Cores
    peak_memory: Number
    mean_memory: Number
    gpu: Number | None = None
    peak_gpu_memory: Number | None = None
    gpu_memory: Number | None = None
    killed: Flag = False
    points: tuple[UsagePoint, ...] = ()
    pid: Number | None = None

    @property
    def mean_cores(self) -> float:
        """The CPU cores that it has used in the mean."""
        return self.cpu_seconds / self.seconds if self.seconds > 0 else 0.0


def usage_to_metadata(usage: StepUsage) -> dict[str, Any]:
    """Encode usage as metadata of a step's record; None values are left out."""
    values = {name: value for name, value in asdict(usage).items() if value is not None}
    return {KEY: {**values, "points": [list(point) for point in usage.points]}}


def usage_from_metadata(metadata: Mapping[str, Any]) -> StepUsage | None:
    """Decode the usage from the metadata of a step's record; None if there is none, or a wrong one.

    Wherever a record was read with its metadata, `StepRecord.usage` holds it.
    """
    if KEY not in metadata:
        return None
    try:
        return adapter(StepUsage).validate_python(metadata[KEY])
    except ValidationError:
        return None
