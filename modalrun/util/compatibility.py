"""Check the installed versions of Python, modal and ZenML.

The supported versions are those of modalrun's package metadata. Inside a sandbox modalrun runs from
bare source, without metadata: there every version is accepted, since the image was made for it.
"""

from __future__ import annotations

import platform
from importlib import metadata

from packaging.requirements import Requirement

from modalrun import __version__
from modalrun.errors import UsageError
from modalrun.util.check import LABELS, Finding, version

PACKAGES = ("modal", "zenml")


def versions_of(package: str) -> str:
    """Return the versions of a package that modalrun requires, ">=1.6.4,<2"; "" if not known."""
    try:
        lines = metadata.requires("modalrun") or []
    except metadata.PackageNotFoundError:
        return ""
    # An extra may repeat a package, without bounds.
    named = [one for one in map(Requirement, lines) if one.name == package]
    own = (one for one in named if one.marker is None or one.marker.evaluate({"extra": ""}))
    bounds = next((one.specifier for one in own), ())
    return ",".join(sorted(map(str, bounds), reverse=True))


def installed() -> list[Finding]:
    """Check Python, modalrun, modal and ZenML against modalrun's requirements."""
    try:
        (python,) = metadata.metadata("modalrun").get_all("Requires-Python") or [""]
    except metadata.PackageNotFoundError:
        python = ""
    return [
        version("python", platform.python_version(), python),
        Finding("modalrun", "ok", __version__),
        *map(_check, PACKAGES),
    ]


def require() -> None:
    """Check that modalrun supports the installed versions of modal and ZenML.

    Raises:
        UsageError: It doesn't, or one is not installed.
    """
    for package in PACKAGES:
        finding = _check(package)
        if finding.state != "ok":
            raise UsageError(f"{LABELS[package]} {finding.message}.", hint=finding.hint)


def _check(package: str) -> Finding:
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError:
        found = None
    return version(package, found, versions_of(package))
