"""Answer HTTP/1.1 requests: uploads, and on the control socket those of the launcher."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus

_CHUNK = 256 * 1024


@dataclass(frozen=True)
class Request:
    """The head of a request, and its body as it arrives."""

    method: str
    path: str
    headers: dict[str, str]
    body: AsyncIterator[bytes]


@dataclass(frozen=True)
class Response:
    """An answer: `body`, or a `stream` that ends when the connection is closed."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None


Route = Callable[[Request], Awaitable[Response]]


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readline()).split(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return
    left = int(headers.get("content-length", "0"))
    while left > 0:
        part = await reader.read(min(left, _CHUNK))
        if not part:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(part)
        yield part


async def serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, routes: dict[tuple[str, str], Route]
) -> None:
    """Answer one request and close. `routes` maps a method and the first part of a path."""
    try:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        route = routes.get((method, path.split("/")[1]))
        if route is None:
            response = Response(404)
        else:
            response = await route(Request(method, path, headers, _body(reader, headers)))
        head = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
        extra = {"Connection": "close"}
        if response.stream is None:
            extra["Content-Length"] = str(len(response.body))
        head += [f"{name}: {value}" for name, value in {**response.headers, **extra}.items()]
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1") + response.body)
        await writer.drain()
        if response.stream is not None:
            async for part in response.stream:
                writer.write(part)
                await writer.drain()
    except (
        OSError,
        ValueError,
        IndexError,
        asyncio.IncompleteReadError,
        asyncio.LimitOverrunError,
    ):
        # The request is malformed or the client has disconnected.
        pass
    finally:
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()
