"""Describe what `modalrun doctor` found: one finding for each check. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion

from modalrun.errors import AuthenticationError, ModalrunError, UsageError
from modalrun.util.reachability import ASK_DOCTOR, CHECK_SERVER

State = Literal["ok", "warning", "problem", "skipped", "differs", "broken"]

LABELS = {
    "python": "Python",
    "modalrun": "modalrun",
    "modal": "Modal SDK",
    "zenml": "ZenML",
    "modal_account": "Modal account",
    "local_server": "local Modal server",
    "zenml_server": "ZenML server",
    "zenml_login": "ZenML login",
    "stack": "stack",
    "artifact_store": "artifact store",
    "image": "image",
    "clock": "clock",
    "spec": "run spec",
    "pipeline": "pipeline",
    "source": "source tree",
}
"""The checks in the order in which they are shown, each with its title."""

CLOCK_WARNING_SECONDS = 10.0
"""The difference that a ZenML server allows (`jwt_token_leeway_seconds`, ZenML 0.98.0)."""

CLOCK_LIMIT_SECONDS = 900.0
"""The difference that S3 allows (`RequestTimeTooSkewed`, AWS's S3 API reference)."""


@dataclass(frozen=True)
class Finding:
    """Hold the result of one check, of `modalrun doctor` or of `modalrun smoke`.

    Attributes:
        check: A key of `LABELS`, or the name of a line of `smoke`.
        state: "ok", "warning" (a run may work), "problem" (it can't), or "skipped" (the check can't
            be made, as because of another problem). Of `smoke`: "ok", "differs" (modalrun copes
            with it, as the hint says) or "broken".
        hint: What to do next, if anything.
        exit_code: The exit code of a command that has the problem; 0 if it is none.
    """

    check: str
    state: State
    message: str
    hint: str | None = None
    exit_code: int = 0

    @classmethod
    def of_error(cls, check: str, error: Exception) -> Finding:
        """Report an error as a problem."""
        if not isinstance(error, ModalrunError):
            text = str(error).strip().partition("\n")[0]
            message = f"{type(error).__name__}: {text}" if text else type(error).__name__
            return cls(check, "problem", message, exit_code=ModalrunError.exit_code)
        hint = CHECK_SERVER if error.hint == ASK_DOCTOR else error.hint
        return cls(check, "problem", error.problem, hint, error.exit_code)

    def as_json(self) -> dict[str, Any]:
        """Return the finding as plain values."""
        values = asdict(self)
        return {"name": values.pop("check"), **values}


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings in the order of `LABELS`."""
    order = list(LABELS)
    return sorted(findings, key=lambda finding: order.index(finding.check))


def exit_code(findings: Iterable[Finding]) -> int:
    """Return the exit code of the first problem in the order of `LABELS`; 0 if there is none."""
    return next((f.exit_code for f in in_order(findings) if f.state == "problem"), 0)


def version(check: str, found: str | None, supported: str) -> Finding:
    """Check that modalrun supports an installed version.

    Args:
        check: "python", "modal" or "zenml".
        found: The installed version, if there is one.
        supported: The versions that modalrun's package requires, ">=1.6,<2"; "" for any.
    """
    if found is None:
        hint = "Install modalrun again, with its dependencies."
        return Finding(check, "problem", "is not installed", hint, UsageError.exit_code)
    bounds = SpecifierSet(supported)
    if bounds.contains(found, prereleases=True):
        return Finding(check, "ok", found)
    shown = ",".join(sorted(map(str, bounds), reverse=True))
    hint = f"Install one that is: pip install '{check}{shown}'. Or use another modalrun."
    if check == "python":
        hint = f"Use Python {shown}, or another version of modalrun."
    message = f"{found} is not supported; {shown} is"
    return Finding(check, "problem", message, hint, UsageError.exit_code)


def server_version(address: str, found: str, client: str, supported: str = "") -> Finding:
    """Check that a ZenML server's version is that of the client."""
    message = f"{address}, version {found}"
    if found == client:
        return Finding("zenml_server", "ok", message)
    message += f"; the client here has {client}. Calls may fail in ways that are hard to read"
    return Finding("zenml_server", "warning", message, for_server(found, supported))


def for_server(found: str, supported: str) -> str:
    """Return what to do about a ZenML server of another version than the client."""
    with contextlib.suppress(InvalidVersion):
        if SpecifierSet(supported).contains(found, prereleases=True):
            return f"Install the server's version: pip install 'zenml=={found}'."
    return f"modalrun works with ZenML {supported}: run a server of such a version."


def clock(ahead: Mapping[str, float]) -> Finding:
    """Check that this machine's clock agrees; `ahead` holds seconds by name of the server."""
    if not ahead:
        return Finding("clock", "skipped", "no ZenML or Modal server to compare it with")
    server, seconds = max(ahead.items(), key=lambda one: abs(one[1]))
    if abs(seconds) <= CLOCK_WARNING_SECONDS:
        servers = " and ".join(ahead)
        return Finding("clock", "ok", f"within {CLOCK_WARNING_SECONDS:g} s of {servers}")
    message = f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} {server}"
    hint = "Set the clock (NTP): tokens and signed requests carry the time, and are refused."
    if abs(seconds) > CLOCK_LIMIT_SECONDS:
        return Finding("clock", "problem", message, hint, AuthenticationError.exit_code)
    return Finding("clock", "warning", message, hint)
