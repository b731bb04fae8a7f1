"""Forward connections on loopback to the open ports of a sandbox.

Sandboxes share the ports of this machine: what listens on a sandbox's port is reached there.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

HOST = "127.0.0.1"
_READ_SIZE = 64 * 1024
_NAME = "localhost"
"""Both loopback addresses: a server may listen on either."""


def is_used(port: int) -> bool:
    """Return whether something listens on a port of this machine."""
    try:
        socket.create_connection((_NAME, port), timeout=1).close()
    except OSError:
        return False
    return True


def check_free(ports: Sequence[api.PortSpec], others: Mapping[str, Tunnels]) -> None:
    """Raise GRPCError for a port that cannot be a new sandbox's, given the running sandboxes."""
    for port in {spec.port for spec in ports}:
        users = (id_ for id_, tunnels in others.items() if tunnels.has(port))
        user = next(users, "another process" if is_used(port) else None)
        if user is not None:
            raise GRPCError(
                Status.FAILED_PRECONDITION,
                f"Port {port} is in use by {user}. Sandboxes of the local Modal server share the"
                " ports of this machine: choose another one.",
            )


@dataclass(eq=False)
class Tunnels:
    """The tunnels of one sandbox.

    Attributes:
        ports: The ports that it asked for.
        busy: A context for the time that a connection is open.
        context: Makes the TLS context of encrypted ports.
        data: What the SDK is told of them; empty until they are open.
    """

    ports: Sequence[api.PortSpec]
    busy: Callable[[], AbstractContextManager[None]]
    context: Callable[[], ssl.SSLContext]
    data: list[api.TunnelData] = field(default_factory=list)
    _servers: list[asyncio.Server] = field(default_factory=list)
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    def has(self, port: int) -> bool:
        """Return whether a port of the sandbox is open."""
        return any(spec.port == port for spec in self.ports)

    async def open(self) -> None:
        """Open one port of loopback for each: plain, or with TLS. Raises OSError."""
        data = []
        for spec in self.ports:
            context = None
            if not spec.unencrypted:
                context = self.context()
                if spec.tunnel_type == api.TUNNEL_TYPE_H2:
                    context.set_alpn_protocols(["h2"])
            server = await asyncio.start_server(
                partial(self._serve, spec.port), HOST, 0, ssl=context
            )
            self._servers.append(server)
            port = server.sockets[0].getsockname()[1]
            one = api.TunnelData(host=_NAME, port=port, container_port=spec.port)
            if spec.unencrypted:
                one.unencrypted_host, one.unencrypted_port = HOST, port
            data.append(one)
        self.data = data

    async def _serve(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with self.busy(), contextlib.suppress(OSError, asyncio.CancelledError):
            try:
                there, here = await asyncio.open_connection(_NAME, port)
                try:
                    await asyncio.gather(_pump(reader, here), _pump(there, writer))
                finally:
                    here.close()
            finally:
                writer.close()

    def close(self) -> None:
        """Close the ports and every connection."""
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_READ_SIZE):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        # TLS has no half-closed connections.
        writer.close()
