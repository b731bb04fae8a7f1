"""Serve gRPC (HTTP/2) and HTTP/1.1 on one port, chosen by a connection's first bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from grpclib.const import Handler
from grpclib.protocol import H2Protocol
from grpclib.server import Server
from h2.settings import SettingCodes

from modalrun.localmodal.server.rpc import Dispatcher

# A V1 client has two streams per sandbox on one connection; h2's default is 100.
_CONCURRENT_STREAMS = 100_000
_PREFACE = b"PRI "

HttpHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class _ManyStreamsProtocol(H2Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connection._connection.update_settings(
            {SettingCodes.MAX_CONCURRENT_STREAMS: _CONCURRENT_STREAMS}
        )
        self.connection.flush()


class _Sniffer(asyncio.Protocol):
    """Waits for four bytes, then hands the connection to the matching protocol."""

    def __init__(self, make_h2: Callable[[], H2Protocol], on_http: HttpHandler) -> None:
        self._make_h2 = make_h2
        self._on_http = on_http
        self._seen = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._seen += data
        if len(self._seen) < len(_PREFACE):
            return
        protocol: asyncio.Protocol
        if self._seen.startswith(_PREFACE):
            protocol = self._make_h2()
        else:
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader, self._on_http)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._seen)


class _Handlers(dict[str, Handler]):
    """The handlers of a dispatcher, and one for every other path."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__(dispatcher.__mapping__())
        self._unknown = dispatcher.unknown

    def get(self, path: str, default: Any = None) -> Handler:
        return super().get(path) or self._unknown(path)


class TwoProtocolServer(Server):
    """A grpclib server with many streams per connection and a handler for HTTP/1.1."""

    def __init__(self, dispatcher: Dispatcher, on_http: HttpHandler) -> None:
        super().__init__([])
        # grpclib's own answer to an unknown path is not one that the SDK understands.
        self._mapping = _Handlers(dispatcher)
        self._on_http = on_http

    def _protocol_factory(self) -> Any:
        return _Sniffer(self._make_h2, self._on_http)

    def _make_h2(self) -> H2Protocol:
        plain = super()._protocol_factory()
        return _ManyStreamsProtocol(plain.handler, plain.config, plain.h2_config)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(cast(Any, self._server).sockets[0].getsockname()[1])
