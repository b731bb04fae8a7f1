"""Resolve the GPU, CPU and memory of a sandbox from resource and orchestrator settings. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from modalrun.errors import UsageError
from modalrun.run.sandbox_spec import DEFAULT_CORES, DEFAULT_MEMORY_MIB, Resources
from modalrun.spec.fields import MEMORY, QUANTITIES, split_gpu
from modalrun.spec.precedence import Layers, Origin, SettingsLayer, Value, resolve
from modalrun.util import modal_catalog as catalog

MIN_CORES = 0.125
MIN_MEMORY_MIB = 128
"""Modal's smallest request (modal.com/docs/guide/resources, read 2026-10-09)."""

_UNITS: dict[str, int] = {"B": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("KMGTP", start=1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}

_Values = dict[str, Value | None]
"""The values of `gpu`, `gpu_count`, `cpu_count`, `memory`, `cpu_limit` and `memory_limit`."""


@dataclass(frozen=True)
class Resolved:
    """Hold the resources of one sandbox, the origin of each of them, and notes for the user."""

    resources: Resources
    origins: Mapping[str, Value]
    notes: tuple[str, ...] = ()


def memory_mib(text: str) -> int:
    """Convert ZenML's memory notation to MiB, rounded up: "32GB" -> 30518, "32GiB" -> 32768.

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
    """Resolve the resources of the one sandbox that runs all steps.

    The pipeline's values count. A quantity that it leaves open takes the highest of the steps',
    each quantity on its own. All layers are flat (`flatten`); the pipeline's include the component.

    Raises:
        UsageError: Steps need different GPU types, a count has no type, Modal doesn't give that
            many GPUs of a type, or a limit is below its request.
    """
    own = {origin: layer for origin, layer in pipeline.items() if origin < Origin.COMPONENT}
    gpu = resolve("gpu", own) or _common_type(steps) or resolve("gpu", pipeline)
    values = {
        "gpu": gpu,
        "gpu_count": resolve("gpu_count", own) or _highest_count(steps, gpu),
        "cpu_count": resolve("cpu_count", own) or _highest("cpu_count", steps, float),
        "memory": resolve("memory", own) or _highest("memory", steps, memory_mib),
        "cpu_limit": resolve("cpu_limit", pipeline),
        "memory_limit": resolve("memory_limit", pipeline),
    }
    notes = [
        f"{name} {value.value} is the {value.source}; the pipeline sets none"
        for name in ("gpu_count", "cpu_count", "memory")
        if (value := values[name]) is not None and value.origin is Origin.CODE_STEP
    ]
    return _resolve(values, "the pipeline", notes, local=local)


def of_step(name: str, pipeline: Layers, step: SettingsLayer, *, local: bool = False) -> Resolved:
    """Resolve the resources of one step's sandbox in `per_step` mode.

    A step that has resources of its own but no `gpu_count`, or one of 0, is a CPU step. A GPU type
    written on the step requests a GPU. Everything that the step leaves open is the pipeline's.

    Raises:
        UsageError: A GPU count has no type, Modal doesn't give that many GPUs of a type, or a limit
            is below its request.
    """
    notes: list[str] = []
    own: Layers = {Origin.CODE_STEP: step}
    own_type, own_count = resolve("gpu", own), resolve("gpu_count", own)
    gpu, count = resolve("gpu", own, pipeline), resolve("gpu_count", own, pipeline)
    has_resources = any(step.get(quantity) is not None for quantity in QUANTITIES)
    if own_type is not None and own_count is None:
        inside = any(split_gpu(text)[1] for text in _listed(own_type.value))
        if inside or (count is not None and count.value == 0):
            # The pipeline's 0 is for steps that don't request a GPU; this one does.
            count = None
    elif own_type is None and own_count is None and has_resources:
        if gpu is not None or (count is not None and count.value):
            notes.append("no GPU: it has resources of its own without a gpu_count")
        gpu, count = None, Value(0, Origin.CODE_STEP, "resources of its own, no gpu_count")
    others = ("cpu_count", "memory", "cpu_limit", "memory_limit")
    values = {"gpu": gpu, "gpu_count": count, **{n: resolve(n, own, pipeline) for n in others}}
    return _resolve(values, f"step '{name}'", notes, local=local)


def _resolve(values: _Values, owner: str, notes: list[str], *, local: bool) -> Resolved:
    gpu, count = values["gpu"], values["gpu_count"]
    gpus = _gpus(gpu, count, owner, local=local)
    if not gpus:
        values["gpu"] = None
    if count is not None and count.value == 0 and gpu is not None:
        notes.append(f"no GPU: gpu_count is 0 ({count.source})")
    cpu_limit = _converted(values["cpu_limit"], float)
    memory_limit = _converted(values["memory_limit"], memory_mib)
    cpu = values["cpu_count"] or _default(DEFAULT_CORES, cpu_limit, MIN_CORES)
    memory = values["memory"] or _default(DEFAULT_MEMORY_MIB, memory_limit, MIN_MEMORY_MIB, "MiB")
    values |= {"cpu_count": cpu, "memory": memory}
    cores, mib = float(cpu.value), memory_mib(str(memory.value))
    if cores < MIN_CORES:
        notes.append(f"cpu {cores:g} is raised to Modal's minimum of {MIN_CORES} cores")
        cores = MIN_CORES
    if mib < MIN_MEMORY_MIB:
        notes.append(f"memory {memory.value} is raised to Modal's minimum of {MIN_MEMORY_MIB} MiB")
        mib = MIN_MEMORY_MIB
    for limit, most, asked_by, least in (
        ("cpu_limit", cpu_limit, cpu, cores),
        ("memory_limit", memory_limit, memory, mib),
    ):
        set_to = values[limit]
        if set_to is not None and most < least:
            raise UsageError(
                f"{owner}: {limit} {set_to.value} ({set_to.source}) is below what is requested,"
                f" {asked_by.value} ({asked_by.source}).",
                hint=f"Raise '{limit}', or lower the request.",
            )
    origins = {name: value for name, value in values.items() if value is not None}
    asked = Resources(gpus, cores, mib, cpu_limit, memory_limit)
    return Resolved(asked, origins, tuple(notes))


def _default(usual: float, limit: float | None, least: float, unit: str = "") -> Value:
    """Return the default request of a quantity: less than usual where its limit is."""
    request = usual if limit is None else max(least, min(usual, limit))
    source = "Modal's minimum" if request == least else Origin.DEFAULT.label
    return Value(f"{request}{unit}" if unit else request, Origin.DEFAULT, source)


def _converted(value: Value | None, convert: Callable[[Any], Any]) -> Any:
    return None if value is None else convert(value.value)


def _gpus(gpu: Value | None, count: Value | None, owner: str, *, local: bool) -> tuple[str, ...]:
    """Return each type with its count, as Modal writes them: ("A100", 2) -> "A100:2"."""
    if count is not None and count.value == 0:
        return ()
    if gpu is None:
        if count is None:
            return ()
        step = f"steps: {owner[6:-1]}: " if owner.startswith("step '") else ""
        same = " The local Modal server needs no GPU: it records the type." if local else ""
        raise UsageError(
            f"{owner} asks for {count.value} GPU{'s' if count.value > 1 else ''} (gpu_count,"
            f" {count.source}) but no type is set.",
            # A local run rehearses one on Modal, which needs the type.
            hint=f"Write the type, such as 'gpu: T4', under '{step}settings: orchestrator:', or, to"
            f" run without a GPU, 'gpu_count: 0' under '{step}settings: resources:'.{same}",
        )
    found = []
    for text in _listed(gpu.value):
        name, inside = split_gpu(text)
        number = count.value if count is not None else inside or 1
        most = catalog.GPUS_PER_SANDBOX.get(catalog.gpu_name(name))
        if most is not None and number > most:
            raise UsageError(
                f"{owner} asks for {number} GPUs of type {name}; Modal gives one sandbox at most"
                f" {most}.",
                hint="Ask for fewer, or choose another type.",
            )
        found.append(name if number == 1 else f"{name}:{number}")
    return tuple(dict.fromkeys(found))


def _highest(name: str, steps: Mapping[str, SettingsLayer], size: Any) -> Value | None:
    asking = {step: w.get(name) for step, w in steps.items() if w.get(name) is not None}
    if not asking:
        return None
    most = max(asking, key=lambda step: size(asking[step]))
    return Value(asking[most], Origin.CODE_STEP, f"highest of steps: {most}")


def _highest_count(steps: Mapping[str, SettingsLayer], gpu: Value | None) -> Value | None:
    """Return the highest count; a type alone, on the pipeline or a step, means one GPU."""
    highest = _highest("gpu_count", steps, int)
    return highest if gpu is None or (highest is not None and highest.value) else None


def _common_type(steps: Mapping[str, SettingsLayer]) -> Value | None:
    """Return the GPU type that the steps agree on; CPU steps have none."""
    gpu_steps = {name: step for name, step in steps.items() if step.get("gpu_count") != 0}
    typed = {n: _listed(step.get("gpu")) for n, step in gpu_steps.items() if step.get("gpu")}
    if not typed:
        return None
    first, types = next(iter(typed.items()))
    for name, others in typed.items():
        if [catalog.gpu_name(gpu) for gpu in others] != [catalog.gpu_name(gpu) for gpu in types]:
            raise UsageError(
                f"step '{first}' asks for the GPU type {', '.join(types)} and step '{name}' for"
                f" {', '.join(others)}, but in pipeline mode all steps share one sandbox.",
                hint="Set one type on the pipeline, or 'mode: per_step' to give each step its own"
                " sandbox.",
            )
    return Value(gpu_steps[first].get("gpu"), Origin.CODE_STEP, f"of step {first}")


def _listed(gpu: str | list[str]) -> list[str]:
    return [gpu] if isinstance(gpu, str) else gpu
