"""List what Modal offers and allows. Pure data, each with its source and date.

The local Modal server refuses what is not in these lists, unless it is started with `--lenient`;
`plan` warns of it. When Modal has changed, correct the list here, and its date.
"""

from __future__ import annotations

from collections.abc import Mapping

AS_OF = "2026-09-01"
"""The date of the copies of Modal's documentation that GPU types, clouds and regions are from."""

GPUS_PER_SANDBOX: Mapping[str, int] = {
    **dict.fromkeys(("T4", "L4"), 8),
    "A10": 4,
    **dict.fromkeys(("L40S", "A100", "A100-40GB", "A100-80GB", "RTX-PRO-6000"), 8),
    **dict.fromkeys(("H100", "H100!", "H200", "B200", "B200+", "B300", "ANY"), 8),
}
"""How many GPUs of a type one sandbox can hold (modal.com/docs/guide/gpu, 2026-09-01)."""

GPU_ALIASES: Mapping[str, str] = {"A10G": "A10"}
"""Other names of GPU types (modal.com/docs/guide/gpu, 2026-09-01)."""

CLOUDS = ("aws", "gcp", "oci", "auto")
"""Cloud providers (`CloudProvider` in `modal_proto/api.proto`, modal 1.6.4, 2026-11-23)."""

BROAD_REGIONS = ("us", "eu", "ap", "uk", "ca", "me", "sa", "af", "mx")
NARROW_REGIONS = (
    *("us-east", "us-central", "us-south", "us-west", "eu-west", "eu-north", "eu-south"),
    *("ap-northeast", "ap-southeast", "ap-south", "ap-melbourne", "jp", "au"),
)
"""Regions (modal.com/docs/guide/region-selection, 2026-09-01). Modal gives exact regions of a
provider, such as "us-east-1", to customers who ask its sales department."""

REGIONS = (*BROAD_REGIONS, *NARROW_REGIONS)

MAX_TIMEOUT = 24 * 3600
"""Seconds that a sandbox can run (modal.com/docs/guide/sandboxes, 2026-10-09)."""

MAX_CORES = 64
MAX_MEMORY_MIB = 336 * 1024
"""The largest request for cores and memory. Modal says that there is one and raises InvalidError
above it, without the numbers (modal.com/docs/guide/resources, 2026-09-01). The memory is a
third-party figure of 2026, not verified; the cores are a guess of ours."""

BUILDER_PYTHONS: Mapping[str, tuple[str, ...]] = {
    "2023.12": ("3.10", "3.11", "3.12"),
    "2024.04": ("3.10", "3.11", "3.12"),
    "2024.10": ("3.10", "3.11", "3.12", "3.13"),
    "2025.06": ("3.10", "3.11", "3.12", "3.13", "3.14", "3.14t", "3.15", "3.15t"),
    "2026.10": ("3.11", "3.12", "3.13", "3.14", "3.14t", "3.15", "3.15t"),
}
"""Image builder versions, oldest first, and the Python versions of `debian_slim` that each has
(`SUPPORTED_PYTHON_SERIES` in `modal/_image.py`, 1.6.4, 2026-11-23)."""

BUILDER_CLIENTS: Mapping[str, tuple[int, ...]] = {"2026.10": (1, 6, 3)}
"""The first modal version that knows a builder version, where not all do (Modal's changelog,
2026-11-27). An older one raises VersionError."""

OBJECT_NAME = r"(?!ap-[a-zA-Z0-9]{22}$)[a-zA-Z0-9\-_.]{1,64}"
"""Names of apps, sandboxes, secrets and volumes (`modal/_utils/name_utils.py`, 1.6.4)."""

ENVIRONMENT_NAME = r"(?![eE][nN]-)[a-zA-Z0-9][a-zA-Z0-9\-_]{0,63}"
"""Names of new environments (the same file)."""

TAG = r"[a-zA-Z0-9\-_.]{1,63}"
"""Keys and values of tags (the same file)."""

VARIABLE = r"[a-zA-Z_][a-zA-Z0-9_]*"
"""Keys of secrets and names of environment variables (`modal/sandbox/_common.py`, 1.6.4)."""

NO_MOUNT_POINTS = ("/", "/root", "/tmp")  # noqa: S108 (a rule of Modal's)
"""Where no volume can be mounted (`modal/_utils/mount_utils.py`, 1.6.4)."""


def gpu_name(gpu_type: str) -> str:
    """Return Modal's name of a GPU type: without its count, in capitals, aliases resolved."""
    name = gpu_type.partition(":")[0].strip().upper()
    return GPU_ALIASES.get(name, name)
