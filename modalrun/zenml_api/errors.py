"""What ZenML raises -> our errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import requests
from zenml.exceptions import AuthorizationException, ZenKeyError

from modalrun.errors import AuthenticationError, ConnectionLostError, NotFoundError

_PROJECT_HINT = "Choose a project with 'zenml project set', or check ZENML_ACTIVE_PROJECT_ID."


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what ZenML raises about its server and its records into our errors."""
    try:
        yield
    except AuthorizationException as error:
        raise AuthenticationError(
            f"ZenML did not accept the credentials: {first_line(error)}",
            hint="Log in again with 'zenml login', or check ZENML_STORE_API_KEY.",
        ) from error
    except ZenKeyError as error:
        raise NotFoundError(first_line(error)) from error
    except KeyError as error:
        text = first_line(error).strip('"')
        # ZenML raises Python's own for an id that it doesn't know; so may a fault of ours.
        if not text.startswith("Unable to get"):
            raise
        raise NotFoundError(text, hint=_PROJECT_HINT if "project" in text else None) from error
    except (
        # Of a server that goes away once it has been reached (`rest_zen_store.py:5193`, 0.98.0).
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.RetryError,
    ) as error:
        raise ConnectionLostError(
            f"The ZenML server can't be reached: {first_line(error)}",
            hint="Check the network and 'zenml status'.",
        ) from error
    except RuntimeError as error:
        if "connecting to URL" not in str(error):
            raise
        raise ConnectionLostError(
            f"The ZenML server can't be reached: {first_line(error)}",
            hint="Check the network and 'zenml status'.",
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message; a KeyError's without the quotes that str() adds."""
    text = str(error.args[0]) if error.args else type(error).__name__
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
