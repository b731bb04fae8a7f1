"""Warn of what Modal is not known to offer. Pure.

Modal adds GPU types, clouds and regions, so another name is passed on with a warning, never
refused. The local Modal server refuses it, unless it is lenient.
"""

from __future__ import annotations

from collections.abc import Sequence

from modalrun.run.run_plan import Target
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.util.modal_catalog import (
    AS_OF,
    CLOUDS,
    GPUS_PER_SANDBOX,
    MAX_CORES,
    MAX_MEMORY_MIB,
    REGIONS,
    gpu_name,
)
from modalrun.util.nearest import nearest


def beyond_catalog(sandboxes: Sequence[SandboxSpec]) -> list[str]:
    """Return a sentence's beginning for each name and size that Modal is not known to offer."""
    gpus = [gpu.partition(":")[0] for sandbox in sandboxes for gpu in sandbox.resources.gpus]
    regions = [region for sandbox in sandboxes for region in sandbox.regions]
    clouds = [sandbox.cloud for sandbox in sandboxes if sandbox.cloud is not None]
    warnings = []
    for kind, names, known in (
        ("GPU type", gpus, tuple(GPUS_PER_SANDBOX)),
        ("region", regions, REGIONS),
        ("cloud", clouds, CLOUDS),
    ):
        for name in dict.fromkeys(names):
            candidate = gpu_name(name) if kind == "GPU type" else name.lower()
            if candidate in known:
                continue
            close = nearest(candidate, known)
            guess = f"did you mean '{close}'?" if close else f"known are {', '.join(known)}"
            warnings.append(
                f"the {kind} '{name}' is not one that Modal is known to have ({AS_OF}; {guess})"
            )
    for kind, sizes, most, unit in (
        ("cpu", [sandbox.resources.cpu for sandbox in sandboxes], MAX_CORES, "cores"),
        ("memory", [sandbox.resources.memory for sandbox in sandboxes], MAX_MEMORY_MIB, "MiB"),
    ):
        highest = max(sizes)
        if highest > most:
            warnings.append(
                f"{kind} {highest:.12g} {unit} is more than Modal is known to give a sandbox"
                f" ({most} {unit})"
            )
    return warnings


def notes(sandboxes: Sequence[SandboxSpec], target: Target) -> list[str]:
    """Return the warnings, and what becomes of such a sandbox."""
    then = "it is passed on as it is"
    if target == "local":
        then = "the local Modal server refuses it, unless it is lenient"
    found = [f"{warning}; {then}" for warning in beyond_catalog(sandboxes)]
    asked = {name for s in sandboxes for name, value in vars(s.resources).items() if value}
    if target == "local" and (limits := sorted(asked & {"cpu_limit", "memory_limit"})):
        found.append(f"{' and '.join(limits)}: the local Modal server keeps no limits")
    return found
