"""What Modal offers, as far as it is known: GPU types, clouds, regions. Pure data and lookups.

Modal adds new ones, so a name that is not here is passed on with a warning, never refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from modalrun.util.nearest import nearest

AS_OF = "2026-09-01"
"""The date of the copies of Modal's documentation that the tables below were read from."""

GPUS_PER_SANDBOX: dict[str, int] = {
    "T4": 8,
    "L4": 8,
    "A10": 4,
    "L40S": 8,
    "A100": 8,
    "A100-40GB": 8,
    "A100-80GB": 8,
    "RTX-PRO-6000": 8,
    "H100": 8,
    "H100!": 8,
    "H200": 8,
    "B200": 8,
    "B200+": 8,
    "B300": 8,
    "ANY": 8,
}
"""How many GPUs of a type one sandbox can hold (modal.com/docs/guide/gpu)."""

_GPU_ALIASES = {"A10G": "A10"}

CLOUDS = ("aws", "gcp", "oci", "auto")

BROAD_REGIONS = ("us", "eu", "ap", "uk", "ca", "me", "sa", "af", "mx")
NARROW_REGIONS = (
    "us-east",
    "us-central",
    "us-south",
    "us-west",
    "eu-west",
    "eu-north",
    "eu-south",
    "ap-northeast",
    "ap-southeast",
    "ap-south",
    "ap-melbourne",
    "jp",
    "au",
)


def gpu_name(gpu_type: str) -> str:
    """The name that Modal knows a GPU type by: without its count, in capitals, aliases resolved."""
    name = gpu_type.partition(":")[0].strip().upper()
    return _GPU_ALIASES.get(name, name)


def most_gpus(gpu_type: str) -> int | None:
    """How many GPUs of a type one sandbox can hold; None for a type that is not known."""
    return GPUS_PER_SANDBOX.get(gpu_name(gpu_type))


def unknown_names(
    gpus: Iterable[str], regions: Iterable[str], clouds: Iterable[str | None]
) -> list[str]:
    """A warning for each name that Modal is not known to offer, with the nearest one it does."""
    warnings = []
    for kind, names, known in (
        ("GPU type", [g.partition(":")[0] for g in gpus], list(GPUS_PER_SANDBOX)),
        ("region", list(regions), [*BROAD_REGIONS, *NARROW_REGIONS]),
        ("cloud", [c for c in clouds if c is not None], list(CLOUDS)),
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
