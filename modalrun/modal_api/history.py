"""What Modal has stored of a sandbox's output, in order of time and in bounded memory.

`sb.logs.fetch` (modal 1.6.4, `modal/_logs.py`) refuses a range in which more than 20,000 entries
fall into two seconds, and holds all of a range in memory; so it is asked for one stretch of time
after the other, as long as there is little in them and shorter where there is much.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from modalrun.modal_api.translate import translated

if TYPE_CHECKING:
    from modal.types import LogEntry

LONGEST_LIFE = 24 * 3600.0 + 600
"""Seconds that a sandbox can last at most (Modal's limit), and a little more."""

_FIRST_STRETCH = 300.0
_SHORTEST_STRETCH = 0.001
_FEW = 2_000
_MANY = 20_000
_ROUNDING = timedelta(microseconds=3)


async def slices(
    sandbox: Any, since: float | None, until: float | None = None, *, source: str | None = None
) -> AsyncGenerator[list[LogEntry], None]:
    """The stored entries of a sandbox between two moments, oldest first.

    Args:
        sandbox: The SDK's inner sandbox; call this in the SDK's event loop.
        since: Seconds since the epoch; None for as long ago as it can have begun if it still runs.
        until: The same; None for now.
        source: "stdout", "stderr" or "system"; None for all.

    Raises:
        ModalrunError: Modal can't be asked.
        modal.exception.LogsFetchError: More entries at one moment than Modal gives.
    """
    from modal.exception import LogsFetchError

    end = time.time() + 1 if until is None else until
    begin = time.time() - LONGEST_LIFE if since is None else since
    stretch = _FIRST_STRETCH if since is not None else end - begin
    while begin < end:
        stop = min(end, begin + stretch)
        entries: list[LogEntry] = []
        try:
            with translated():
                fetched = sandbox.logs.fetch(
                    since=_moment(begin), until=_moment(stop), source=source
                )
                async with aclosing(fetched):
                    async for entry in fetched:
                        if len(entries) >= _MANY and (moment := _between(entries[-1], entry)):
                            stop = moment
                            break
                        entries.append(entry)
        except LogsFetchError:
            if stretch <= _SHORTEST_STRETCH:
                raise
            stretch /= 8
            continue
        begin = stop
        if len(entries) < _FEW:
            stretch *= 4
        if entries:
            yield entries


def _between(earlier: LogEntry, later: LogEntry) -> float | None:
    """A moment that parts two entries for certain: the SDK rounds Modal's nanoseconds."""
    apart = (later.timestamp - earlier.timestamp) / 2
    if apart < _ROUNDING:
        return None
    return (earlier.timestamp + apart).timestamp()


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
