"""Refuse what Modal refuses, with the gRPC status for which the SDK raises the same error.

Rules of the API (names, tags, mount points) always hold. Those of the catalog (GPU types, regions,
maxima, ...) may be out of date when Modal has changed, so that a lenient server leaves them out.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

from modalrun.localmodal.server.rpc import client_version, invalid
from modalrun.util import modal_catalog as catalog
from modalrun.util.nearest import did_you_mean

CATALOG_FILE = catalog.__file__
"""The file that a user corrects when Modal has changed."""


def _check(text: str, pattern: str, what: str, must: str) -> None:
    if not re.fullmatch(pattern, text):
        raise invalid(f"{what}: '{text}'. {must}.")


def check_name(kind: str, name: str) -> None:
    """Raise GRPCError unless Modal takes a name for an app, sandbox, secret or volume."""
    must = "Names have 1 to 64 letters, digits, dashes, periods and underscores, and are no app ids"
    _check(name, catalog.OBJECT_NAME, f"Invalid {kind} name", must)


def check_environment_name(name: str) -> None:
    """Raise GRPCError unless Modal takes a name for a new environment."""
    must = (
        "Names have 1 to 64 letters, digits, dashes and underscores, start with a letter or digit,"
        " and not with 'en-'"
    )
    _check(name, catalog.ENVIRONMENT_NAME, "Invalid Environment name", must)


def check_variables(names: Iterable[str]) -> None:
    """Raise GRPCError for a key of a secret that is no name of an environment variable."""
    for name in names:
        if not re.fullmatch(catalog.VARIABLE, name):
            raise invalid(
                f"Secret key name '{name}' is not that of an environment variable: letters, digits"
                " and underscores, not a digit first."
            )


def check_tags(tags: Mapping[str, str]) -> None:
    """Raise GRPCError for a tag with a key or value that Modal does not take."""
    must = "Both have 1 to 63 letters, digits, dashes, periods and underscores"
    for text in (text for pair in tags.items() for text in pair):
        _check(text, catalog.TAG, "Invalid tag key or value", must)


def check_mount_points(mounts: Iterable[api.VolumeMount]) -> None:
    """Raise GRPCError for volumes that are mounted where Modal mounts none, or twice."""
    mounted: dict[str, str] = {}
    for mount in mounts:
        path = mount.mount_path
        if path != posixpath.normpath(f"/{path.lstrip('/')}"):
            raise invalid(f"Volume {path} must be a canonical, absolute path.")
        if path in catalog.NO_MOUNT_POINTS:
            raise invalid(f"Volume {path} cannot be mounted at '{path}'.")
        if other := mounted.get(mount.volume_id):
            raise invalid(f"The same Volume cannot be mounted at two paths: {other}, {path}")
        if path in mounted.values():
            raise invalid(f"Two Volumes cannot be mounted at the same path: {path}")
        mounted[mount.volume_id] = path


def check_ports(ports: Iterable[api.PortSpec]) -> None:
    """Raise GRPCError for a port that there is not, or that is asked for twice."""
    seen: set[int] = set()
    for spec in ports:
        if not 0 < spec.port < 1 << 16:
            raise invalid(f"Invalid port: {spec.port}. Ports are 1 to 65535.")
        if spec.port in seen:
            raise invalid(f"Port {spec.port} is asked for twice.")
        seen.add(spec.port)


class CatalogRules:
    """The rules of the catalog.

    Attributes:
        lenient: Whether they are left out.
    """

    def __init__(self, *, lenient: bool) -> None:
        self.lenient = lenient

    def check_sandbox(self, definition: api.Sandbox) -> None:
        """Raise GRPCError for a sandbox that Modal would not create."""
        if self.lenient:
            return
        resources, gpu = definition.resources, definition.resources.gpu_config
        if definition.timeout_secs > catalog.MAX_TIMEOUT:
            raise _beyond("timeout", definition.timeout_secs, catalog.MAX_TIMEOUT, "s")
        if resources.milli_cpu > 1000 * catalog.MAX_CORES:
            raise _beyond("cpu", resources.milli_cpu / 1000, catalog.MAX_CORES, "cores")
        if resources.memory_mb > catalog.MAX_MEMORY_MIB:
            raise _beyond("memory", resources.memory_mb, catalog.MAX_MEMORY_MIB, "MiB")
        if gpu.gpu_type:
            name = catalog.gpu_name(gpu.gpu_type)
            _check_known("GPU type", name, catalog.GPUS_PER_SANDBOX)
            if gpu.count > (most := catalog.GPUS_PER_SANDBOX[name]):
                raise _beyond("gpu count", gpu.count, most, f"GPUs of type {name}")
        for region in definition.scheduler_placement.regions:
            _check_known("region", region.lower(), catalog.REGIONS)
        if definition.cloud_provider_str:
            _check_known("cloud", definition.cloud_provider_str.lower(), catalog.CLOUDS)

    def check_builder(self, version: str) -> None:
        """Raise GRPCError for an image builder version that Modal does not have."""
        if not self.lenient:
            known = (*catalog.BUILDER_PYTHONS, "PREVIEW")
            # Of dates, the nearest by its letters is a guess.
            _check_known("image builder version", version, known, guess=False)


def newest_builder() -> str:
    """Return the newest image builder version that the SDK of the current call knows."""
    sdk = tuple(int(part) for part in re.findall(r"\d+", client_version.get())[:3])
    known = (v for v in catalog.BUILDER_PYTHONS if sdk >= catalog.BUILDER_CLIENTS.get(v, ()))
    return max(known)


def _beyond(what: str, asked: float, most: int, unit: str) -> GRPCError:
    return invalid(f"{what} {asked:g} is above Modal's maximum of {most} {unit}.{_CORRECT}")


def _check_known(kind: str, name: str, known: Iterable[str], *, guess: bool = True) -> None:
    if name not in known:
        hint = f"It has {', '.join(known)}."
        hint = did_you_mean(name, known, hint) if guess else hint
        raise invalid(f"Modal has no {kind} '{name}'. {hint}{_CORRECT}")


_CORRECT = (
    " (From the local Modal server's catalog; 'modalrun local start --lenient' turns it off.)"
)
