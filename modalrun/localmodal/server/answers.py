"""Remember the answers to calls that a client may repeat: it gets the same one again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Generic, TypeVar

from google.protobuf.message import Message

_MOST = 4096
_MOST_BYTES = 64 * 1024 * 1024
"""Of all answers but the newest; one of `DictPop` may have 100 MiB."""


_M = TypeVar("_M", bound=Message)


class Answers(Generic[_M]):
    """The newest answers, by key."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Hashable, _M] = OrderedDict()
        self._running: dict[Hashable, asyncio.Future[_M]] = {}
        self._bytes = 0

    def find(self, key: Hashable) -> _M | None:
        """Return the answer that has a key; None if there is none, or it is too old."""
        return self._answers.get(key)

    def keep(self, key: Hashable, answer: _M) -> None:
        """Remember an answer by a new key."""
        while self._answers and (self._bytes > _MOST_BYTES or len(self._answers) >= _MOST):
            self._bytes -= self._answers.popitem(last=False)[1].ByteSize()
        self._answers[key] = answer
        self._bytes += answer.ByteSize()

    async def once(self, key: Hashable, create: Callable[[], Awaitable[_M]]) -> _M:
        """Return the answer that has a key; create it only if there is none. Raises its error."""
        if answer := self.find(key):
            return answer
        if key not in self._running:
            # A separate task: the first caller may disconnect while the retry waits.
            self._running[key] = asyncio.ensure_future(create())
            self._running[key].add_done_callback(partial(self._end, key))
        return await asyncio.shield(self._running[key])

    def _end(self, key: Hashable, done: asyncio.Future[_M]) -> None:
        del self._running[key]
        if not done.cancelled() and done.exception() is None:
            self.keep(key, done.result())
