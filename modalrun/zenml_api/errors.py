"""Translate the exceptions of ZenML and of its server to modalrun's. Does not import ZenML."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import requests
from pydantic import ValidationError

from modalrun.errors import (
    AuthenticationError,
    ConnectionLostError,
    MachineError,
    ModalrunError,
    NotFoundError,
    ServerError,
    UsageError,
)
from modalrun.util.reachability import ASK_DOCTOR
from modalrun.zenml_api import config_files

_PROJECT_HINT = "Choose a project with 'zenml project set', or check ZENML_ACTIVE_PROJECT_ID."

# A server that goes away after it has been reached (`rest_zen_store.py:5193`, 0.98.0).
UNREACHABLE = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.RetryError,
    # An answer that breaks off.
    requests.exceptions.ChunkedEncodingError,
)
"""What `requests` raises then."""

_NOT_ZENMLS = (
    "Bad response from API",
    "HTTP Error received from server",
    "Error retrieving from API",
)
"""What ZenML's client says of an answer that is no server's of ZenML (`rest_zen_store.py:5095`)."""

_CLIENT = "rest_zen_store.py"
"""The file of ZenML's client that sends requests."""


def database_errors() -> tuple[type[Any], ...]:
    """Return the errors of a local database, for `except`; none in a process that uses none.

    An image of ZenML for a server has no SQLAlchemy: only `zenml[local]` needs it.
    """
    sqlalchemy = sys.modules.get("sqlalchemy.exc")
    return () if sqlalchemy is None else (sqlalchemy.DBAPIError,)


def _zenml_errors(name: str) -> tuple[type[Any], ...]:
    """Return a class of ZenML's exceptions, for `except`; none in a process without ZenML."""
    exceptions = sys.modules.get("zenml.exceptions")
    return () if exceptions is None else (getattr(exceptions, name),)


class NotAllowedError(Exception):
    """ZenML allows no such change, or no longer: its IllegalOperationError."""


class ServerTrouble(requests.RequestException):
    """The server has answered a request with errors of its own for minutes."""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Translate what ZenML raises about its server and its records.

    Raises:
        AuthenticationError: ZenML's server refuses the credentials, or does not allow the call.
        NotFoundError: A record that was asked for does not exist.
        ServerError: ZenML's server has answered with errors of its own for minutes, or something
            else has answered in its place.
        ConnectionLostError: ZenML's server can't be reached.
    """
    try:
        yield
    except _zenml_errors("AuthorizationException") as error:
        raise AuthenticationError(
            f"ZenML did not accept the credentials: {first_line(error)}",
            hint="Log in again with 'zenml login', or check ZENML_STORE_API_KEY.",
        ) from error
    except _zenml_errors("IllegalOperationError") as error:
        # A server's 403 (`zen_server/exceptions.py:77`, 0.98.0).
        raise AuthenticationError(
            f"ZenML does not allow this: {first_line(error)}",
            hint="Log in with 'zenml login' as a user, or a service account, who has the right.",
        ) from error
    except _zenml_errors("SubscriptionUpgradeRequiredError") as error:
        # Of ZenML Pro; its text says what is used up.
        raise AuthenticationError(f"ZenML does not allow this: {first_line(error)}") from error
    except _zenml_errors("ZenKeyError") as error:
        raise NotFoundError(first_line(error)) from error
    except KeyError as error:
        text = first_line(error).strip('"')
        # ZenML raises the built-in KeyError for an unknown id; a bug may raise another one.
        if not text.startswith("Unable to get"):
            raise
        raise NotFoundError(text, hint=_PROJECT_HINT if "project" in text else None) from error
    except _zenml_errors("MaxConcurrentTasksError") as error:
        raise _server_error(error) from error
    except ServerTrouble as error:
        raise _server_error(error) from error
    except (*UNREACHABLE, RuntimeError, ValueError) as error:
        if not isinstance(error, UNREACHABLE) and "connecting to URL" not in str(error):
            if any(text in str(error) for text in _NOT_ZENMLS):
                raise _server_error(error) from error
            raise
        raise ConnectionLostError(
            f"The ZenML server can't be reached: {first_line(error)}",
            hint=ASK_DOCTOR,
        ) from error


def _server_error(error: Exception) -> ServerError:
    return ServerError(
        f"The ZenML server has trouble: {first_line(error)}",
        hint="Try again later. The server's own log says more.",
    )


@contextlib.contextmanager
def only_logged(failed: str) -> Iterator[None]:
    """Log an error and go on.

    Args:
        failed: What has failed then: "The run's metadata was not stored".
    """
    try:
        yield
    except Exception as error:
        logging.getLogger(__name__).warning("%s: %s", failed, first_line(error))


def store_error(error: Exception) -> ModalrunError | None:
    """Return what an error of ZenML's store, client or configuration means; None for another."""
    if isinstance(error, database_errors()):
        return MachineError(
            f"ZenML's database {config_files.database() or ''} can't be used: {error.orig}.",
            hint="Free space if its disk is full; restore the file if it is damaged.",
        )
    if not isinstance(error, ValidationError):
        return _of_other_server(error)
    found = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in found["loc"])
    if error.title == "GlobalConfiguration":
        return UsageError(
            f"ZenML's configuration {config_files.folder() / 'config.yaml'} is damaged:"
            f" {name}: {found['msg']}.",
            hint="Restore it; or delete it, and log in or choose the stack again.",
        )
    if found["type"] == "string_too_long":
        kind = re.sub(r"(?<!^)(?=[A-Z])", " ", error.title.removesuffix("Request")).lower()
        length = found["ctx"]["max_length"]
        text = str(found["input"])
        return UsageError(
            f"ZenML takes at most {length} characters as the {name} of a {kind};"
            f" '{text[:20]}...' has {len(text)}."
        )
    return _of_other_server(error)


def _of_other_server(error: Exception) -> UsageError | None:
    """Return the error for a failure of ZenML's client at a server of another version."""
    frames = traceback.walk_tb(error.__traceback__)
    files = {Path(frame.f_code.co_filename).name for frame, _ in frames}
    server, client = _server_version(), version("zenml")
    known = isinstance(error, ModalrunError)
    if known or server is None or server == client or _CLIENT not in files:
        return None
    # Drivers, which import this too, do without it.
    from modalrun.util.check import for_server
    from modalrun.util.compatibility import versions_of

    return UsageError(
        f"A request of ZenML {client} to its server, which is of version {server}, has failed:"
        f" {type(error).__name__}: {first_line(error)}",
        hint=for_server(server, versions_of("zenml")),
    )


def _server_version() -> str | None:
    """Return the version of the ZenML server whose store is open in this process."""
    module = sys.modules.get("zenml.config.global_config")
    configuration = module and module.GlobalConfiguration.get_instance()
    info = getattr(configuration and configuration._zen_store, "_server_info", None)
    return str(info.version) if info else None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class if it has none."""
    text = message(error)
    return text.splitlines()[0] if text else type(error).__name__


def message(error: BaseException) -> str:
    """Return the whole message of an error, without the quotes of a KeyError."""
    try:
        return str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()
    except Exception:
        # A class of the user's may not be printable.
        return ""
