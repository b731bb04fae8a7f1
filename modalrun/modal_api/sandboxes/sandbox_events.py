"""Listen to the events on a sandbox's standard output, through lost connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from modalrun.errors import ModalrunError, NotFoundError
from modalrun.modal_api.errors import WorkerGoneError, stream_errors
from modalrun.modal_api.sandboxes.connection_pool import FIRST_PAUSE, LONGEST_PAUSE
from modalrun.modal_api.sdk_internals import MissingBytes, StreamPosition, inner, read, sdk_loop
from modalrun.run.events import Event, EventScanner, Used
from modalrun.util.backoff import pauses
from modalrun.util.modal_catalog import MAX_TIMEOUT

if TYPE_CHECKING:
    import modal


TOLD_SECONDS = 5.0

TAIL = 20
"""Entries at the end of an output: a few lines, and events of modalrun between them."""

_USED = '{"modalrun": "used"'


async def listen(
    sandbox: modal.Sandbox,
    on_event: Callable[[Event | None], object],
    log: Callable[[str], object],
) -> None:
    """Call `on_event` in this event loop with each event, until the output ends.

    Args:
        sandbox: The sandbox.
        on_event: Also called with None where Modal has no more a part of the output.
        log: Called with a message when the connection is lost.
    """
    loop = asyncio.get_running_loop()
    reading = asyncio.run_coroutine_threadsafe(
        _listen(inner(sandbox), lambda event: loop.call_soon_threadsafe(on_event, event), log),
        sdk_loop(),
    )
    await asyncio.wrap_future(reading)


async def told_usage(sandbox: modal.Sandbox) -> list[str]:
    """Return the readings of its steps that a sandbox has told; none if Modal does not say."""

    async def read() -> str:
        since = datetime.now(timezone.utc) - timedelta(seconds=MAX_TIMEOUT)
        entries = sandbox.logs.fetch.aio(since=since, source="stdout", search_text=_USED)
        return "".join([one.message async for one in entries])

    # What is only told must not end a run.
    with contextlib.suppress(Exception):
        text = await asyncio.wait_for(read(), TOLD_SECONDS)
        events = EventScanner().feed(text.encode())
        return [one for event in events if isinstance(event, Used) for one in event.readings]
    return []


async def output_tail(sandbox: modal.Sandbox) -> str:
    """Return the end of what a sandbox has printed; "" if Modal does not say."""

    async def read() -> str:
        return "".join([one.message async for one in sandbox.logs.tail.aio(TAIL)])

    with contextlib.suppress(Exception):
        return await asyncio.wait_for(read(), TOLD_SECONDS)
    return ""


async def _listen(
    sandbox: Any, on_event: Callable[[Event | None], object], log: Callable[[str], object]
) -> None:
    position, scanner = StreamPosition(), EventScanner()
    waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
    while not position.ended:
        before, failed = (position.offset, position.entry), False
        try:
            with stream_errors():
                async with aclosing(read(sandbox, "stdout", position)) as chunks:
                    async for chunk in chunks:
                        if isinstance(chunk, MissingBytes):
                            on_event(None)
                            continue
                        for event in scanner.feed(chunk):
                            on_event(event)
        except (NotFoundError, WorkerGoneError):
            return
        except ModalrunError as error:
            failed = True
            log(f"{sandbox.object_id}: {error.message}; reading again")
        if not failed or (position.offset, position.entry) != before:
            # Modal's V1 backend ends the stream of a quiet sandbox every 55 s.
            waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        if not position.ended:
            await asyncio.sleep(next(waits))
