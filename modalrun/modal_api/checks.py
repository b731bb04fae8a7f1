"""What is checked of a Modal account before anything is created in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from modalrun.errors import AuthenticationError, ConnectionLostError, UsageError
from modalrun.modal_api.errors import translated
from modalrun.util.reachability import CONNECT_SECONDS, connection_problem

if TYPE_CHECKING:
    import modal


def names(
    client: modal.Client,
    *,
    environment: str | None,
    secrets: Iterable[str],
    volumes: Iterable[str],
    make: bool,
) -> None:
    """Check that an environment, and secrets and volumes in it, exist.

    Args:
        client: The connection.
        environment: The environment; None for the profile's.
        secrets: Names of secrets.
        volumes: Names of volumes.
        make: Whether environments and volumes come into being as they are named.

    Raises:
        NotFoundError: One of them doesn't exist.
        AuthenticationError, ConnectionLostError: As for every call.
    """
    import modal

    with translated():
        if environment:
            modal.Environment.from_name(
                environment, create_if_missing=make, client=client
            ).hydrate()
        for one in dict.fromkeys(secrets):
            modal.Secret.from_name(one, environment_name=environment, client=client).hydrate()
        for one in () if make else dict.fromkeys(volumes):
            modal.Volume.from_name(one, environment_name=environment, client=client).hydrate()


def require_whole_token(token_id: str | None, token_secret: str | None) -> None:
    """Raise an AuthenticationError for no token, and a UsageError for half of one."""
    if not token_id and not token_secret:
        raise AuthenticationError(
            "There is no Modal token.",
            effect="Nothing was created.",
            hint="Run 'modal setup', or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET; 'target: local'"
            " runs without Modal.",
        )
    if bool(token_id) != bool(token_secret):
        given, missing = ("id", "secret") if token_id else ("secret", "id")
        raise UsageError(
            f"Modal's configuration holds the {given} of a token without its {missing}.",
            hint="Set both MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run 'modal setup'.",
        )


def require_server(url: str, seconds: float = CONNECT_SECONDS) -> None:
    """Raise a ConnectionLostError where nothing answers at the server's address in time."""
    problem = connection_problem(url.split(",", maxsplit=1)[0], seconds)
    if problem is not None:
        raise ConnectionLostError(
            f"Modal can't be reached at {url}: {problem}.",
            effect="Nothing was created on Modal.",
            hint="Check the network. 'target: local' runs without Modal.",
        ) from problem
