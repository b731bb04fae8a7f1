"""No bytes make the local Modal server's HTTP parser fail, or wait for what does not come."""

from __future__ import annotations

import asyncio

from hypothesis import example, given, settings
from hypothesis import strategies as st

from modalrun.localmodal.server import http


class Writer:
    """The part of a stream's writer that is used."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None:
        pass


async def read_all(request: http.Request) -> http.Response:
    return http.Response(200, b"".join([part async for part in request.body]))


def answer(data: bytes) -> bytes:
    """Return what the server answers to a connection that ends after these bytes."""

    async def serve() -> Writer:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        writer = Writer()
        routes = {("PUT", "blob"): read_all}
        await asyncio.wait_for(http.serve(reader, writer, routes), 5)  # type: ignore[arg-type]
        return writer

    writer = asyncio.run(serve())
    assert writer.closed
    return writer.sent


HEADS = ("Content-Length", "Transfer-Encoding", "Expect", "Authorization", "")
VALUES = ("-1", "0", "3", "9" * 5000, "chunked", "100-continue", "\u0663")
PIECES = [
    *(b"PUT /blob/x HTTP/1.1\r\n", b"PUT", b"GET /status HTTP/1.1\r\n", b"/", b" ", b"\r\n"),
    *(b"-5\r\n", b"3\r\nabc\r\n", b"0\r\n", b"fffffffffffffffffff\r\n", b"\0", b"\xff"),
    *(f"{name}: {value}\r\n".encode() for name in HEADS for value in VALUES),
]


@settings(deadline=None)
@given(st.binary())
def test_random_bytes(data: bytes) -> None:
    answer(data)


@example([b"PUT /blob/x HTTP/1.1\r\n", b"Content-Length: -1\r\n", b"\r\n", b"rest"])
@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=12))
def test_pieces_of_requests(pieces: list[bytes]) -> None:
    answer(b"".join(pieces))


def test_a_head_without_end_is_not_kept() -> None:
    assert answer(b"PUT /blob/x HTTP/1.1\r\n" + b"a: b\r\n" * 1_000_000) == b""
