"""Use the private parts of the Modal SDK: its event loop, and the streams beneath `sb.stdout`.

`sb.stdout` gives single lines, each through another thread (13,000 a second), always from the
beginning, and stops at a byte that is not UTF-8. Beneath it, in the SDK's own event loop, are whole
chunks from any position. Read from modal 1.6.4 (`modal/io_streams.py`, `modal/sandbox/`). If a
later version has moved a part, `read` uses `sb.stdout`, and `exit_of` reads the exit code alone.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from modalrun.modal_api.errors import translated
from modalrun.modal_api.log_buffer import StreamName
from modalrun.run.contract import EXIT_TIMED_OUT
from modalrun.run.sandbox_exit import ModalStatus, SandboxExit, read_exit

if TYPE_CHECKING:
    import modal

    from modalrun.modal_api.client import Connection


def sdk_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of all SDK objects, which runs in a thread of its own."""
    from modal._utils.async_utils import synchronizer

    return synchronizer._get_loop(start=True)


def inner(wrapped: object) -> Any:
    """Return the private object behind one of the SDK's public ones, for use in its event loop."""
    from modal._utils.async_utils import synchronizer

    translate: Callable[[object], Any] = synchronizer._translate_in
    return translate(wrapped)


def keep_loaded(image: modal.Image) -> None:
    """Keep a loaded image from being loaded again as part of another one (`modal/_resolver.py`)."""
    inner(image)._skip_reload = True


async def look_up_image(image: modal.Image) -> None:
    """Ask Modal for a published image, which `image.hydrate` refuses (`modal/_image.py:3278`)."""
    from modal._object import _Object

    found = inner(image)
    # As an image by name has it; one by id has not.
    found._hydrate_lazily = True
    asking = asyncio.run_coroutine_threadsafe(_Object.hydrate(found), sdk_loop())
    await asyncio.wrap_future(asking)


def load_token(connection: Connection) -> None:
    """Request the token that Modal wants with each creation of a sandbox; the SDK keeps it.

    Nothing happens with an SDK that has none, or if it can't be had now.
    """
    with contextlib.suppress(Exception):
        manager = inner(connection.client)._auth_token_manager
        asyncio.run_coroutine_threadsafe(manager.get_token(), sdk_loop()).result()


async def sandbox_from_id(sandbox: str, client: Any) -> Any:
    """Return the inner sandbox of an id, with an inner client, in the SDK's event loop."""
    from modal.sandbox._sandbox import _Sandbox

    return await _Sandbox.from_id(sandbox, client=client)


def exit_of(sandbox: modal.Sandbox) -> SandboxExit | None:
    """Return how a public sandbox has ended, by the SDK's last look; None while it runs."""
    code = sandbox.returncode
    if code is None:
        return None
    try:
        result = inner(sandbox)._impl.result
        return read_exit(code, result.status, result.exception)
    except (ImportError, AttributeError):
        return read_exit(code)


async def end_of(sandbox: modal.Sandbox) -> SandboxExit | None:
    """Wait for the end of a public sandbox; None if the SDK does not know it.

    Raises:
        ModalrunError: As for `translated`.
    """
    from modal.exception import SandboxTimeoutError

    try:
        with translated():
            await sandbox.wait.aio(raise_on_termination=False)
    except SandboxTimeoutError:
        return read_exit(EXIT_TIMED_OUT, ModalStatus.TIMEOUT)
    return exit_of(sandbox)


def has_place(sandbox: modal.Sandbox) -> bool:
    """Return whether a public sandbox has a place; True with an SDK that can't say."""
    import modal

    with contextlib.suppress(AttributeError):
        look_up = inner(sandbox)._impl.resolve_task_id_for_logs()
        try:
            asyncio.run_coroutine_threadsafe(look_up, sdk_loop()).result()
        except modal.exception.ExecutionError:
            return False
    return True


@dataclass
class StreamPosition:
    """How far a stream has been read.

    Attributes:
        offset: Bytes from its beginning.
        entry: The same position as an id of Modal's, on the backend without offsets (V1).
        skip: Bytes that come again from there, and are not to be read again.
        ended: Whether all of it has been read.
        decoder: Keeps the bytes of a character that has not come as a whole.
    """

    offset: int = 0
    entry: str = ""
    skip: int = 0
    ended: bool = False
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def advance(self, data: bytes) -> bytes:
        """Move over data that has come; return the part that was not read before."""
        fresh = data[self.skip :]
        self.skip -= len(data) - len(fresh)
        self.offset += len(fresh)
        return fresh


@dataclass(frozen=True)
class MissingBytes:
    """Bytes that Modal no longer holds, from the position read so far up to `end`."""

    end: int


Chunks = AsyncGenerator["bytes | MissingBytes", None]


def read(sandbox: Any, stream: StreamName, position: StreamPosition) -> Chunks:
    """Read a stream of an inner sandbox from a position on, and move the position.

    Unless `position.ended` is set afterwards, there is more to read.
    """
    reader = {1: _read_v1, 2: _read_v2, None: _read_lines}[_backend(sandbox)]
    return reader(sandbox, stream, position)


def _backend(sandbox: Any) -> Literal[1, 2] | None:
    """Return the backend of a sandbox; None if this SDK lacks what its streams are read with."""
    try:
        from modal import io_streams
        from modal.sandbox import _impl_v1, _impl_v2
        from modal.sandbox._task_command_router_client import TaskCommandRouterClient

        if isinstance(sandbox._impl, _impl_v2.SandboxImplV2):
            needed: tuple[object, ...] = (
                sandbox._impl.get_task_id,
                sandbox._impl.get_command_router_client,
                TaskCommandRouterClient.sandbox_stdio_read,
            )
            return 2 if all(map(callable, needed)) else None
        if isinstance(sandbox._impl, _impl_v1.SandboxImplV1):
            return 1 if callable(io_streams._sandbox_logs_iterator) else None
    except (ImportError, AttributeError):
        pass
    return None


async def _read_v2(sandbox: Any, stream: StreamName, position: StreamPosition) -> Chunks:
    # The SDK would wait for ever for the place of a sandbox that has ended without one.
    task_id = await sandbox._impl.get_task_id(raise_if_task_complete=True)
    router = await sandbox._impl.get_command_router_client(task_id)
    items = router.sandbox_stdio_read(task_id, _descriptor(stream), start_offset=position.offset)
    async with aclosing(items):
        async for item in items:
            if item.starting_offset > position.offset:
                yield MissingBytes(item.starting_offset)
                position.offset = item.starting_offset
            position.offset += len(item.data)
            yield item.data
    position.ended = True


async def _read_v1(sandbox: Any, stream: StreamName, position: StreamPosition) -> Chunks:
    from modal.io_streams import _sandbox_logs_iterator

    items = _sandbox_logs_iterator(
        sandbox.object_id, _descriptor(stream), position.entry, sandbox._client
    )
    async with aclosing(items):
        async for data, entry in items:
            position.entry = entry
            if data is None:
                position.ended = True
                return
            if fresh := position.advance(data):
                yield fresh


async def _read_lines(sandbox: Any, stream: StreamName, position: StreamPosition) -> Chunks:
    position.skip = position.offset
    async for text in getattr(sandbox, stream):
        if fresh := position.advance(text.encode()):
            yield fresh
    position.ended = True


def _descriptor(stream: StreamName) -> Any:
    from modal_proto import api_pb2

    return api_pb2.FileDescriptor.Value(f"FILE_DESCRIPTOR_{stream.upper()}")
