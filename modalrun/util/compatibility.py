"""Which versions of Python, modal and ZenML modalrun works with, and which are here.

What is supported is said once, by the project's package metadata. Run from its bare source, as
inside a sandbox, modalrun has none and takes what there is: its image was made for it.
"""

from __future__ import annotations

import platform
from importlib import metadata

from packaging.requirements import Requirement

from modalrun import __version__
from modalrun.errors import UsageError
from modalrun.util import check as findings
from modalrun.util.check import LABELS, Finding

PACKAGES = ("modal", "zenml")


def versions_of(package: str) -> str:
    """The versions of a package that modalrun asks for, ">=1.6.4,<2"; "" where nothing says so."""
    try:
        lines = metadata.requires("modalrun") or []
    except metadata.PackageNotFoundError:
        return ""
    needed = {one.name: one for one in map(Requirement, lines)}
    return str(needed[package].specifier) if package in needed else ""


def check(package: str) -> Finding:
    """Whether the installed version of "modal" or "zenml" is one that modalrun works with."""
    return findings.version(package, _version(package), versions_of(package))


def installed() -> list[Finding]:
    """Python, modalrun, modal and ZenML, each by what modalrun's own package asks for."""
    try:
        (python,) = metadata.metadata("modalrun").get_all("Requires-Python") or [""]
    except metadata.PackageNotFoundError:
        python = ""
    return [
        findings.version("python", platform.python_version(), python),
        Finding("modalrun", "ok", __version__),
        *map(check, PACKAGES),
    ]


def require() -> None:
    """Go on only with versions of modal and ZenML that modalrun works with.

    Raises:
        UsageError: Another one is installed, or none.
    """
    for package in PACKAGES:
        finding = check(package)
        if finding.state != "ok":
            raise UsageError(f"{LABELS[package]} {finding.message}.", hint=finding.hint)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
