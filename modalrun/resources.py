"""`ResourceSettings` and orchestrator settings -> the gpu, cpu and memory of a sandbox. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modalrun.errors import UsageError

MIN_CORES = 0.125
MIN_MEMORY_MIB = 128
"""Modal's smallest request (modal.com/docs/guide/resources, read 2026-10-09)."""

_UNITS: dict[str, int] = {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("KMGTP", start=1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}
_MEMORY = re.compile(r"^([0-9]+)([KMGTP]i?B)$")


@dataclass(frozen=True)
class Resources:
    """What one sandbox asks for.

    Attributes:
        gpu: Type and count as Modal writes them ("A100", "A100:2"); None for a CPU sandbox.
        cpu: Physical cores; None for Modal's default.
        memory: MiB; None for Modal's default.
    """

    gpu: str | None = None
    cpu: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Request:
    """What a pipeline or step wrote, before anything is resolved.

    Attributes:
        owner: "the pipeline", or the step in words, for messages.
        gpu_type: The type, where one was written.
        gpu_count: `ResourceSettings.gpu_count`, where one was written.
        cpu: Cores, where written.
        memory: ZenML's notation ("32GB"), where written.
    """

    owner: str
    gpu_type: str | None = None
    gpu_count: int | None = None
    cpu: float | None = None
    memory: str | None = None


def memory_mib(text: str) -> int:
    """ZenML's memory notation in MiB, exact and rounded up: "32GB" -> 30518, "32GiB" -> 32768.

    Raises:
        UsageError: The text is not a whole number with a unit from KB to PiB.
    """
    match = _MEMORY.match(text)
    if match is None:
        raise UsageError(
            f"'{text}' is not an amount of memory.",
            hint="Write a whole number and a unit, such as '16GB' (10^9 bytes) or '16GiB' (2^30).",
        )
    size = int(match[1]) * _UNITS[match[2]]
    return -(-size // 2**20)


def request(owner: str, settings: Mapping[str, Any], resources: Mapping[str, Any]) -> Request:
    """Read a request from orchestrator settings and `ResourceSettings`, both as plain values.

    Raises:
        UsageError: A list of GPU types, which is not supported yet.
    """
    gpu = settings.get("gpu")
    if isinstance(gpu, list):
        if len(gpu) > 1:
            raise UsageError(
                f"{owner} names several GPU types ({', '.join(gpu)}); falling back from one to the"
                " next is not supported yet.",
                hint="Name one type.",
            )
        gpu = gpu[0]
    return Request(
        owner=owner,
        gpu_type=gpu,
        gpu_count=resources.get("gpu_count"),
        cpu=resources.get("cpu_count"),
        memory=resources.get("memory"),
    )


def pipeline_mode(pipeline: Request, steps: list[Request]) -> tuple[Resources, list[str]]:
    """The resources of the one sandbox that runs all steps, and what is worth saying about them.

    What the pipeline writes counts. A quantity that it leaves open takes the highest that any
    step asks for, each quantity on its own.

    Raises:
        UsageError: Steps ask for different GPU types, a count stands without a type, or a count
            inside the type contradicts `gpu_count`.
    """
    notes: list[str] = []
    gpu_type, type_owner = pipeline.gpu_type, pipeline.owner
    if gpu_type is None:
        gpu_type, type_owner = _common_type(steps)

    def highest(attribute: str, size: Any = float) -> tuple[Any, str]:
        own = getattr(pipeline, attribute)
        if own is not None:
            return own, pipeline.owner
        asking = [s for s in steps if getattr(s, attribute) is not None]
        if not asking:
            return None, pipeline.owner
        most = max(asking, key=lambda s: size(getattr(s, attribute)))
        notes.append(
            f"{attribute.replace('_', ' ')} {getattr(most, attribute)}: the highest that a step"
            f" asks for ({most.owner}); the pipeline sets none"
        )
        return getattr(most, attribute), most.owner

    count, count_owner = highest("gpu_count")
    cpu, _ = highest("cpu")
    memory_text, _ = highest("memory", memory_mib)
    gpu = gpu_string(gpu_type, count, type_owner=type_owner, count_owner=count_owner)
    memory = None if memory_text is None else memory_mib(memory_text)
    if cpu is not None and cpu < MIN_CORES:
        notes.append(f"cpu {cpu:g} raised to Modal's minimum, {MIN_CORES} cores")
        cpu = MIN_CORES
    if memory is not None and memory < MIN_MEMORY_MIB:
        notes.append(f"memory {memory_text} raised to Modal's minimum, {MIN_MEMORY_MIB} MiB")
        memory = MIN_MEMORY_MIB
    return Resources(gpu=gpu, cpu=cpu, memory=memory), notes


def gpu_string(
    gpu_type: str | None, count: int | None, *, type_owner: str, count_owner: str
) -> str | None:
    """Type and count as Modal writes them: ("A100", 2) -> "A100:2"; None for a CPU sandbox.

    Raises:
        UsageError: A count without a type, or a count in the type that contradicts `count`.
    """
    if gpu_type is None:
        if count:
            raise UsageError(
                f"{count_owner} asks for {count} GPU{'s' if count > 1 else ''} (gpu_count) but no"
                " type is set.",
                hint="Write the type under 'settings: orchestrator: gpu:', such as 'T4' or 'A100'.",
            )
        return None
    name, colon, inside = gpu_type.partition(":")
    if colon:
        if not inside.isdigit() or int(inside) < 1:
            raise UsageError(
                f"{type_owner}: '{gpu_type}' is not a GPU type.",
                hint="Write 'A100', or 'A100:2' for two.",
            )
        if count is not None and count != int(inside):
            raise UsageError(
                f"{type_owner} sets gpu '{gpu_type}' ({inside}), but {count_owner} sets"
                f" gpu_count {count}.",
                hint="Write the count once.",
            )
        count = int(inside)
    if count == 0:
        return None
    return name if count in {None, 1} else f"{name}:{count}"


def _common_type(steps: list[Request]) -> tuple[str | None, str]:
    typed = [s for s in steps if s.gpu_type is not None]
    if not typed:
        return None, "the pipeline"
    first = typed[0]
    for other in typed[1:]:
        if str(other.gpu_type).upper() != str(first.gpu_type).upper():
            raise UsageError(
                f"{first.owner} asks for the GPU type {first.gpu_type} and {other.owner} for"
                f" {other.gpu_type}, but in pipeline mode all steps share one sandbox.",
                hint="Set one type on the pipeline.",
            )
    return first.gpu_type, first.owner
