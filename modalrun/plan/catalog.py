"""List the GPU types, clouds and regions that Modal is known to offer. Pure.

Modal adds new ones, so another name is passed on with a warning, never refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.util.nearest import nearest

AS_OF = "2026-09-01"
"""The date of the copies of Modal's documentation that the tables are from."""

GPUS_PER_SANDBOX = {
    **dict.fromkeys(("T4", "L4"), 8),
    "A10": 4,
    **dict.fromkeys(("L40S", "A100", "A100-40GB", "A100-80GB", "RTX-PRO-6000"), 8),
    **dict.fromkeys(("H100", "H100!", "H200", "B200", "B200+", "B300", "ANY"), 8),
}
"""How many GPUs of a type one sandbox can hold (modal.com/docs/guide/gpu)."""

_GPU_ALIASES = {"A10G": "A10"}

CLOUDS = ("aws", "gcp", "oci", "auto")

REGIONS = (
    *("us", "eu", "ap", "uk", "ca", "me", "sa", "af", "mx"),
    *("us-east", "us-central", "us-south", "us-west", "eu-west", "eu-north", "eu-south"),
    *("ap-northeast", "ap-southeast", "ap-south", "ap-melbourne", "jp", "au"),
)


def gpu_name(gpu_type: str) -> str:
    """Return Modal's name of a GPU type: without its count, in capitals, aliases resolved."""
    name = gpu_type.partition(":")[0].strip().upper()
    return _GPU_ALIASES.get(name, name)


def unknown_names(sandboxes: Sequence[SandboxSpec]) -> list[str]:
    """Return a warning for each name that Modal is not known to offer, with the nearest known."""
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
            guess = f"did you mean '{close}'?" if close else f"known are {', '.join(known)}."
            warnings.append(
                f"the {kind} '{name}' is not one that Modal is known to have ({AS_OF}); it is"
                f" passed on as it is; {guess}"
            )
    return warnings
