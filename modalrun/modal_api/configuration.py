"""Read Modal's configuration without importing the SDK. As in `modal/config.py`, 1.6.4."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalrun.errors import UsageError
from modalrun.localmodal import launcher
from modalrun.run.run_plan import Target

if TYPE_CHECKING:
    from modalrun.spec.precedence import Value

ENVIRONMENT = "MODAL_ENVIRONMENT"


def require_readable_configuration() -> dict[str, Any]:
    """Return what Modal's configuration file holds; with a damaged one the SDK can't be imported.

    Raises:
        UsageError: It can't be read.
    """
    import toml

    path = Path(os.environ.get("MODAL_CONFIG_PATH") or Path.home() / ".modal.toml")
    try:
        return toml.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        # That of the local Modal server is another one, which it writes itself.
        again = "" if "MODAL_CONFIG_PATH" in os.environ else "; 'modal setup' writes a new one"
        raise UsageError(
            f"Modal's configuration {path} can't be read: {reason}.",
            hint=f"Restore or delete it{again}.",
        ) from error


def configured_environment(target: Target) -> Value | None:
    """Return the Modal environment of the variable, or else of the profile; None for no such.

    The local Modal server has no profiles, and the variable counts if the shell names that server.

    Raises:
        UsageError: The configuration can't be read.
    """
    if target == "local" and not os.environ.get(launcher.STATE_VARIABLE):
        return None
    if ENVIRONMENT in os.environ:
        # An empty one stands for the default environment of the workspace.
        return _value(os.environ[ENVIRONMENT], ENVIRONMENT)
    if target == "local":
        return None
    profiles = {k: v for k, v in require_readable_configuration().items() if isinstance(v, dict)}
    active = next((k for k, values in profiles.items() if values.get("active") is True), "default")
    profile = os.environ.get("MODAL_PROFILE") or active
    return _value(profiles.get(profile, {}).get("environment"), f"Modal profile '{profile}'")


def local_server_note(target: Target) -> str | None:
    """Say that target 'modal' is the local Modal server here; None where it is Modal's cloud."""
    url = os.environ.get("MODAL_SERVER_URL")
    if target == "local" or not url or not os.environ.get(launcher.STATE_VARIABLE):
        return None
    server = launcher.running()
    if server is None or server.url != url:
        return None
    return (
        "MODAL_SERVER_URL is the local Modal server's, so target 'modal' is that server and not"
        " Modal's cloud; 'eval \"$(modalrun local env --unset)\"' ends that"
    )


def _value(name: Any, source: str) -> Value | None:
    # Most commands don't ask, and the import takes longer than all of Modal's gateway.
    from modalrun.spec.precedence import Origin, Value

    return Value(str(name), Origin.DEFAULT, source) if name else None
