"""`ResourceSettings` and orchestrator settings -> the gpu, cpu and memory of a sandbox. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modalrun.errors import UsageError
from modalrun.plan import catalog
from modalrun.run.sandbox_spec import Resources
from modalrun.spec.fields import MEMORY, QUANTITIES, split_gpu
from modalrun.spec.precedence import Layers, Origin, SettingsLayer, Value, resolve

MIN_CORES = 0.125
MIN_MEMORY_MIB = 128
"""Modal's smallest request, and what it gives when none is made
(modal.com/docs/guide/resources, read 2026-10-09)."""

DRIVER_CORES = 0.5
DRIVER_MEMORY_MIB = 1024
"""What the driver of `per_step` mode gets: ZenML's client and the Modal SDK take about 400 MB."""

_UNITS: dict[str, int] = {"B": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("KMGTP", start=1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}


DRIVER = Resources(cpu=DRIVER_CORES, memory=DRIVER_MEMORY_MIB)


@dataclass(frozen=True)
class Resolved:
    """The resources of one sandbox, where each of them came from, and what to say about them."""

    resources: Resources
    origins: Mapping[str, Value]
    notes: tuple[str, ...] = ()


def memory_mib(text: str) -> int:
    """ZenML's memory notation in MiB, exact and rounded up: "32GB" -> 30518, "32GiB" -> 32768.

    Raises:
        UsageError: The text is not a whole number with a unit from B to PiB.
    """
    match = MEMORY.fullmatch(text)
    if match is None:
        raise UsageError(
            f"'{text}' is not an amount of memory.",
            hint="Write a whole number and a unit, such as '16GB' (10^9 bytes) or '16GiB' (2^30).",
        )
    size = int(match[1]) * _UNITS[match[2]]
    return -(-size // 2**20)


def of_pipeline(
    pipeline: Layers, steps: Mapping[str, SettingsLayer], *, local: bool = False
) -> Resolved:
    """The resources of the one sandbox that runs all steps.

    What the pipeline writes counts. A quantity that it leaves open takes the highest that any
    step asks for, each quantity on its own.

    Args:
        pipeline: What is written about the pipeline, flat, and the component's defaults.
        steps: What each step says itself, flat.
        local: Whether the sandbox is the local Modal server's, for messages.

    Raises:
        UsageError: Steps ask for different GPU types, a count stands without a type, a type can't
            be had that often, or a limit is below its request.
    """
    own = {origin: w for origin, w in pipeline.items() if origin < Origin.COMPONENT}
    notes: list[str] = []
    gpu = resolve("gpu", own) or _common_type(steps) or resolve("gpu", pipeline)
    count = resolve("gpu_count", own) or _highest_count(steps, gpu)
    cpu = resolve("cpu_count", own) or _highest("cpu_count", steps, float)
    memory = resolve("memory", own) or _highest("memory", steps, memory_mib)
    for name, value in (("gpu_count", count), ("cpu_count", cpu), ("memory", memory)):
        if value is not None and value.origin is Origin.CODE_STEP:
            notes.append(f"{name} {value.value} is the {value.source}; the pipeline sets none")
    return _resolve(
        gpu,
        count,
        cpu,
        memory,
        cpu_limit=resolve("cpu_limit", pipeline),
        memory_limit=resolve("memory_limit", pipeline),
        owner="the pipeline",
        local=local,
        notes=notes,
    )


def of_step(name: str, pipeline: Layers, step: SettingsLayer, *, local: bool = False) -> Resolved:
    """The resources of one step's sandbox in `per_step` mode.

    A step that has resources of its own but no `gpu_count`, or one of 0, is a CPU step. A GPU type
    written on the step asks for a GPU. Everything that the step leaves open is the pipeline's.

    Args:
        name: The step's name, for messages.
        pipeline: What is written about the pipeline, flat, and the component's defaults.
        step: What the step says itself, flat.
        local: Whether the sandbox is the local Modal server's, for messages.

    Raises:
        UsageError: A GPU count stands without a type, a type can't be had that often, or a limit
            is below its request.
    """
    notes: list[str] = []
    own: Layers = {Origin.CODE_STEP: step}
    own_type, own_count = resolve("gpu", own), resolve("gpu_count", own)
    has_resources = any(step.get(quantity) is not None for quantity in QUANTITIES)
    gpu, count = resolve("gpu", own, pipeline), resolve("gpu_count", own, pipeline)
    if own_type is not None and own_count is None:
        if _counts_inside(own_type) or (count is not None and count.value == 0):
            # The pipeline's 0 is for steps that don't ask for a GPU; this one does.
            count = None
    elif own_type is None and own_count is None and has_resources:
        if gpu is not None or (count is not None and count.value):
            notes.append("no GPU: it has resources of its own without a gpu_count")
        gpu, count = None, Value.at(0, Origin.CODE_STEP, "resources of its own, no gpu_count")
    return _resolve(
        gpu,
        count,
        resolve("cpu_count", own, pipeline),
        resolve("memory", own, pipeline),
        cpu_limit=resolve("cpu_limit", own, pipeline),
        memory_limit=resolve("memory_limit", own, pipeline),
        owner=f"step '{name}'",
        local=local,
        notes=notes,
    )


def _resolve(
    gpu: Value | None,
    count: Value | None,
    cpu: Value | None,
    memory: Value | None,
    *,
    cpu_limit: Value | None,
    memory_limit: Value | None,
    owner: str,
    local: bool,
    notes: list[str],
) -> Resolved:
    gpus = _gpus(gpu, count, owner, local=local)
    if count is not None and count.value == 0 and gpu is not None:
        notes.append(f"no GPU: gpu_count is 0 ({count.source})")
    cores = None if cpu is None else float(cpu.value)
    mib = None if memory is None else memory_mib(memory.value)
    if cores is not None and cores < MIN_CORES:
        notes.append(f"cpu {cores:g} is raised to Modal's minimum of {MIN_CORES} cores")
        cores = MIN_CORES
    if mib is not None and memory is not None and mib < MIN_MEMORY_MIB:
        notes.append(f"memory {memory.value} is raised to Modal's minimum of {MIN_MEMORY_MIB} MiB")
        mib = MIN_MEMORY_MIB
    most_cores = None if cpu_limit is None else float(cpu_limit.value)
    most_mib = None if memory_limit is None else memory_mib(memory_limit.value)
    _check_limit("cpu_limit", most_cores, cpu_limit, cores or MIN_CORES, cpu, owner=owner)
    _check_limit("memory_limit", most_mib, memory_limit, mib or MIN_MEMORY_MIB, memory, owner=owner)
    written = {
        "gpu": gpu if gpus else None,
        "gpu_count": count,
        "cpu_count": cpu,
        "memory": memory,
        "cpu_limit": cpu_limit,
        "memory_limit": memory_limit,
    }
    return Resolved(
        Resources(gpus=gpus, cpu=cores, memory=mib, cpu_limit=most_cores, memory_limit=most_mib),
        {name: value for name, value in written.items() if value is not None},
        tuple(notes),
    )


def _ways_out(owner: str, *, local: bool) -> str:
    """How a spec mends a GPU count without a type, at one step where one step has it."""
    step = f"steps: {owner[6:-1]}: " if owner.startswith("step '") else ""
    where = f"under '{step}settings: orchestrator:'"
    none = f"or, to run without a GPU, 'gpu_count: 0' under '{step}settings: resources:'."
    # Modal can't be asked for a GPU of no type, and a rehearsal of it has to say so, too.
    same = " The local Modal server needs no GPU: it records the type." if local else ""
    return f"Write the type, such as 'gpu: T4', {where}, {none}{same}"


def _gpus(gpu: Value | None, count: Value | None, owner: str, *, local: bool) -> tuple[str, ...]:
    """Each type with its count, as Modal writes them: ("A100", 2) -> "A100:2"."""
    if count is not None and count.value == 0:
        return ()
    if gpu is None:
        if count is None:
            return ()
        raise UsageError(
            f"{owner} asks for {count.value} GPU{'s' if count.value > 1 else ''} (gpu_count,"
            f" {count.source}) but no type is set.",
            hint=_ways_out(owner, local=local),
        )
    listed = [gpu.value] if isinstance(gpu.value, str) else gpu.value
    found = []
    for text in listed:
        name, inside = split_gpu(text)
        number = count.value if count is not None else inside or 1
        most = catalog.most_gpus(name)
        if most is not None and number > most:
            raise UsageError(
                f"{owner} asks for {number} GPUs of type {name}; Modal gives one sandbox at most"
                f" {most}.",
                hint="Lower 'gpu_count', or choose another type.",
            )
        found.append(name if number == 1 else f"{name}:{number}")
    return tuple(dict.fromkeys(found))


def _check_limit(
    name: str,
    limit: float | None,
    limit_from: Value | None,
    request: float,
    request_from: Value | None,
    *,
    owner: str,
) -> None:
    if limit is None or limit_from is None or limit >= request:
        return
    source = request_from.source if request_from else "Modal's minimum"
    shown = request_from.value if request_from else f"{request:g}"
    raise UsageError(
        f"{owner}: {name} {limit_from.value} ({limit_from.source}) is below what is requested,"
        f" {shown} ({source}).",
        hint=f"Raise '{name}', or lower the request.",
    )


def _counts_inside(gpu: Value) -> bool:
    listed = [gpu.value] if isinstance(gpu.value, str) else gpu.value
    return any(split_gpu(text)[1] for text in listed)


def _highest(name: str, steps: Mapping[str, SettingsLayer], size: Any) -> Value | None:
    asking = {step: w.get(name) for step, w in steps.items() if w.get(name) is not None}
    if not asking:
        return None
    most = max(asking, key=lambda step: size(asking[step]))
    return Value(asking[most], Origin.CODE_STEP, f"highest of steps: {most}")


def _highest_count(steps: Mapping[str, SettingsLayer], gpu: Value | None) -> Value | None:
    """A type alone, on the pipeline or a step, means one; a higher count of a step counts."""
    highest = _highest("gpu_count", steps, int)
    return highest if gpu is None or (highest is not None and highest.value) else None


def _common_type(steps: Mapping[str, SettingsLayer]) -> Value | None:
    """Return the GPU type that the steps agree on; CPU steps have none."""
    gpu_steps = {name: step for name, step in steps.items() if step.get("gpu_count") != 0}
    typed = {name: w.get("gpu") for name, w in gpu_steps.items() if w.get("gpu") is not None}
    names = list(typed)
    for name in names[1:]:
        if _same_types(typed[name]) != _same_types(typed[names[0]]):
            raise UsageError(
                f"step '{names[0]}' asks for the GPU type {_words(typed[names[0]])} and step"
                f" '{name}' for {_words(typed[name])}, but in pipeline mode all steps share one"
                " sandbox.",
                hint="Set one type on the pipeline, or 'mode: per_step' to give each step its own"
                " sandbox.",
            )
    return Value(typed[names[0]], Origin.CODE_STEP, f"of step {names[0]}") if names else None


def _same_types(gpu: str | list[str]) -> list[str]:
    return [catalog.gpu_name(text) for text in ([gpu] if isinstance(gpu, str) else gpu)]


def _words(gpu: str | list[str]) -> str:
    return gpu if isinstance(gpu, str) else ", ".join(gpu)
