"""What `modalrun doctor` finds: one finding per check, and what they mean together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion

from modalrun.errors import AuthenticationError, ModalrunError, UsageError

State = Literal["ok", "warning", "problem", "skipped"]

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
}
"""The checks by name, in the order in which they are shown, and as a person reads them."""

CLOCK_WARNING_SECONDS = 10.0
"""How far a ZenML server lets clocks be apart (`jwt_token_leeway_seconds`, ZenML 0.98.0)."""

CLOCK_LIMIT_SECONDS = 900.0
"""How far S3 lets them be apart (`RequestTimeTooSkewed`, AWS's S3 API reference)."""


@dataclass(frozen=True)
class Finding:
    """What one check has found.

    Attributes:
        check: One of `LABELS`.
        state: "ok", "warning" (a run may work), "problem" (it can't), or "skipped" (what the check
            needs is a problem itself).
        message: What was found.
        hint: What to do next; None where nothing is to do.
        exit_code: What a command would end with for it; 0 unless it is a problem.
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
        return cls(check, "problem", error.problem, error.hint, error.exit_code)

    def as_json(self) -> dict[str, Any]:
        """The finding as plain values."""
        return {
            "name": self.check,
            "state": self.state,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The findings in the order of `LABELS`."""
    order = list(LABELS)
    return sorted(findings, key=lambda finding: order.index(finding.check))


def exit_code(findings: Iterable[Finding]) -> int:
    """The exit code of the first problem in the order of `LABELS`; 0 without one."""
    return next((f.exit_code for f in in_order(findings) if f.state == "problem"), 0)


def version(check: str, found: str | None, supported: str) -> Finding:
    """Whether a version is one that modalrun works with.

    Args:
        check: "python", "modal" or "zenml".
        found: The installed version; None where there is none.
        supported: The versions that modalrun's package asks for, ">=1.6,<2"; "" for any.
    """
    what = LABELS[check]
    fitting = SpecifierSet(supported)
    shown = ",".join(sorted((str(one) for one in fitting), reverse=True))
    if found is None:
        hint = "Install modalrun again, with what it depends on."
        return Finding(check, "problem", "is not installed", hint, UsageError.exit_code)
    if fitting.contains(found, prereleases=True):
        return Finding(check, "ok", found)
    hint = f"Use {what} {shown}, or another version of modalrun."
    if check != "python":
        hint = f"Install one that is: pip install '{check}{shown}'. Or use another modalrun."
    message = f"{found} is not supported; {shown} is"
    return Finding(check, "problem", message, hint, UsageError.exit_code)


def server_version(address: str, found: str | None, client: str, supported: str = "") -> Finding:
    """Whether a ZenML server and the client speak the same version.

    Args:
        address: The server's URL.
        found: Its version; None where it is not known.
        client: The version of ZenML that is installed here.
        supported: As for `version`.
    """
    if found is None:
        return Finding("zenml_server", "ok", f"{address} answers; its version is not known")
    message = f"{address}, version {found}"
    if found == client:
        return Finding("zenml_server", "ok", message)
    return Finding(
        "zenml_server",
        "warning",
        f"{message}; the client here has {client}. Calls may fail in ways that are hard to read",
        _same_version(found, supported),
    )


def _same_version(server: str, supported: str) -> str:
    """How a client and a server come to the same version."""
    try:
        fits = SpecifierSet(supported).contains(server, prereleases=True)
    except InvalidVersion:
        fits = False
    if not fits:
        return f"modalrun works with ZenML {supported}: run a server of such a version."
    return f"Install the server's version: pip install 'zenml=={server}'."


def clock(ahead: Mapping[str, float]) -> Finding:
    """Whether this machine's clock and those of the servers agree.

    Args:
        ahead: By server in words, the seconds that this machine's clock is ahead of it.
    """
    if not ahead:
        return Finding("clock", "ok", "no server to compare it with")
    who, seconds = max(ahead.items(), key=lambda one: abs(one[1]))
    if abs(seconds) <= CLOCK_WARNING_SECONDS:
        others = " and ".join(ahead)
        return Finding("clock", "ok", f"within {CLOCK_WARNING_SECONDS:g} s of {others}")
    message = f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} {who}"
    hint = "Set the clock (NTP): tokens and signed requests carry the time, and are refused."
    if abs(seconds) > CLOCK_LIMIT_SECONDS:
        return Finding("clock", "problem", message, hint, AuthenticationError.exit_code)
    return Finding("clock", "warning", message, hint)
