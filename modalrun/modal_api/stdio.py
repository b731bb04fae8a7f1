"""A stream of a sandbox in pieces, from any place on: what lies beneath the SDK's `sb.stdout`.

`sb.stdout` gives single lines, each through another thread (13,000 a second), always from the
beginning, and breaks off at a byte that is not UTF-8. Beneath it, in the SDK's own event loop,
come whole pieces at a place that the caller keeps. Read from `modal/io_streams.py`, 1.6.4;
where another version has moved these parts, `sb.stdout` is used after all.
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from modalrun.modal_api import sdk_internals

Source = Literal["stdout", "stderr"]
SOURCES: tuple[Source, ...] = ("stdout", "stderr")


@dataclass
class Place:
    """How far a stream has been read.

    Attributes:
        offset: Bytes from its beginning.
        entry: Modal's own mark for the same place, on the backend that has no offsets (V1).
        skip: Bytes that are still to be passed over there.
        ended: Whether all of it has been read.
    """

    offset: int = 0
    entry: str = ""
    skip: int = 0
    ended: bool = False
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )


@dataclass(frozen=True)
class Gap:
    """Bytes that Modal no longer holds: from the place read so far up to `end`."""

    end: int


def read(sandbox: Any, source: Source, place: Place) -> AsyncGenerator[bytes | Gap, None]:
    """The pieces of a stream from a place on; moves the place. It may end before the stream has.

    Args:
        sandbox: The SDK's inner sandbox.
        source: Which stream.
        place: Where to begin; `place.ended` says that the stream is over.
    """
    reader = {1: _read_v1, 2: _read_v2, None: _read_lines}[sdk_internals.backend(sandbox)]
    return reader(sandbox, source, place)


async def _read_v2(sandbox: Any, source: Source, place: Place) -> AsyncGenerator[bytes | Gap, None]:
    task_id, router = await sdk_internals.command_router(sandbox)
    number = cast(Any, _descriptor(source))
    async with aclosing(
        router.sandbox_stdio_read(task_id, number, start_offset=place.offset)
    ) as items:
        async for item in items:
            if item.starting_offset > place.offset:
                yield Gap(item.starting_offset)
                place.offset = item.starting_offset
            place.offset += len(item.data)
            yield item.data
    place.ended = True


async def _read_v1(sandbox: Any, source: Source, place: Place) -> AsyncGenerator[bytes | Gap, None]:
    from modal.io_streams import _sandbox_logs_iterator

    number = cast(Any, _descriptor(source))
    async with aclosing(
        _sandbox_logs_iterator(sandbox.object_id, number, place.entry, sandbox._client)
    ) as items:
        async for data, entry in items:
            place.entry = entry
            if data is None:
                place.ended = True
                return
            fresh = data[place.skip :]
            place.skip -= len(data) - len(fresh)
            place.offset += len(fresh)
            if fresh:
                yield fresh


async def _read_lines(
    sandbox: Any, source: Source, place: Place
) -> AsyncGenerator[bytes | Gap, None]:
    skip = place.offset
    async for text in getattr(sandbox, source):
        data = text.encode()
        fresh = data[skip:]
        skip -= len(data) - len(fresh)
        place.offset += len(fresh)
        if fresh:
            yield fresh
    place.ended = True


def _descriptor(source: Source) -> int:
    from modal_proto import api_pb2

    if source == "stdout":
        return api_pb2.FILE_DESCRIPTOR_STDOUT
    return api_pb2.FILE_DESCRIPTOR_STDERR
