"""Share connections to Modal among many sandboxes, and repeat calls until Modal answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from modalrun.errors import CapacityError, ConflictError, ConnectionLostError
from modalrun.modal_api.errors import translated
from modalrun.util.backoff import pauses

if TYPE_CHECKING:
    import modal

T = TypeVar("T")

SANDBOXES_PER_CONNECTION = 50
"""HTTP/2 servers allow about a hundred calls at a time, and each sandbox has a call that waits."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
"""Seconds between two attempts of a call while Modal can't be asked, growing."""


MOST_CONFLICTS = 5
"""How often a call is repeated that Modal can't do in its present state."""


@dataclass
class PooledConnection:
    """A connection to Modal, and the number of its sandboxes that are created or waited for."""

    client: modal.Client
    load: int = 0


async def connect() -> modal.Client:
    """Connect with the token of the environment."""
    import modal

    # In a sandbox on Modal the SDK ignores a token of its own configuration.
    return await modal.Client.from_credentials.aio(
        os.environ["MODAL_TOKEN_ID"], os.environ["MODAL_TOKEN_SECRET"]
    )


class ConnectionPool:
    """The connections of one event loop; more are made as more sandboxes need them."""

    def __init__(
        self, log: Callable[[str], None], connect: Callable[[], Awaitable[modal.Client]] = connect
    ) -> None:
        """
        Args:
            log: Called with a message when a call is repeated.
            connect: Makes a connection.
        """
        self.connections: list[PooledConnection] = []
        self.log = log
        self._connect = connect
        self._connecting = asyncio.Lock()

    async def get(self) -> PooledConnection:
        """Return a connection with room for one more sandbox; raise as `translated`."""
        while True:
            for connection in self.connections:
                if connection.load < SANDBOXES_PER_CONNECTION:
                    return connection
            # One new connection does for all that wait for the lock.
            waited = self._connecting.locked()
            async with self._connecting:
                if not waited:
                    with translated():
                        self.connections.append(PooledConnection(await self._connect()))

    async def call(self, request: Callable[[], Awaitable[T]]) -> T:
        """Return the result of a request, repeated as long as Modal can't be reached.

        Other errors are raised as by `translated`; a conflict after some attempts.
        """
        waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        conflicts = 0
        while True:
            try:
                with translated():
                    return await request()
            except (ConnectionLostError, CapacityError) as error:
                conflicts += isinstance(error, ConflictError)
                if conflicts > MOST_CONFLICTS:
                    raise
                self.log(f"{error.message}; trying again")
            await asyncio.sleep(next(waits))
