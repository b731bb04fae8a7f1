"""Serve the RPCs about queues."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

from modalrun.localmodal.server.answers import Answers
from modalrun.localmodal.server.rpc import idempotency_key, invalid, rpc
from modalrun.localmodal.services.named import NamedService
from modalrun.localmodal.signals import Signal
from modalrun.localmodal.storage.store import Store, Stored

# The limits of a queue (docstring of `modal.Queue`, 1.6.4).
_TTL = 24 * 3600
_PARTITIONS = 100_000
_VALUES = 5000
_VALUE_BYTES = 1024 * 1024
_PARTITION_BYTES = 64 * 1024 * 1024
_KEY_BYTES = 64

_LONGEST_WAIT = 3600.0
_ANSWER_BYTES = 8 * 1024 * 1024


class Queues(NamedService):
    """The RPCs about queues. A call that waits is woken by the next `put`."""

    kind = "queue"
    prefix = "qu"
    plural = "queues"

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._changed: defaultdict[str, Signal] = defaultdict(Signal)
        self._taken: Answers[api.QueueGetResponse] = Answers()

    def _partition(self, queue_id: str, key: bytes) -> bytes:
        self.get(queue_id)
        if len(key) > _KEY_BYTES:
            raise invalid(f"The key of a partition has at most {_KEY_BYTES} bytes")
        return key

    def listed(self, item: Stored, request: api.QueueListRequest) -> Any:
        partitions, size = self._entries.totals(item.id, self._clock.now())
        return self.about(
            api.QueueListResponse.QueueInfo,
            item,
            name=item.name,
            created_at=item.created_at,
            num_partitions=partitions,
            total_size=min(size, request.total_size_limit or size),
        )

    def drop(self, object_id: str) -> None:
        super().drop(object_id)
        if waiting := self._changed.pop(object_id, None):
            waiting.fire()

    @rpc("QueuePut", create=True)
    async def put(self, request: api.QueuePutRequest) -> Empty:
        queue_id, now = request.queue_id, self._clock.now()
        partition = self._partition(queue_id, request.partition_key)
        ttl = request.partition_ttl_seconds or _TTL
        if not 0 < ttl <= _TTL:
            raise invalid(f"partition_ttl is between 1 and {_TTL} seconds")
        if any(len(value) > _VALUE_BYTES for value in request.values):
            raise invalid(f"A value of a queue has at most {_VALUE_BYTES} bytes")
        count, size = self._entries.sizes(queue_id, partition, now)
        full = (
            count + len(request.values) > _VALUES
            or size + sum(map(len, request.values)) > _PARTITION_BYTES
            or (not count and self._entries.totals(queue_id, now)[0] >= _PARTITIONS)
        )
        if full:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED,
                f"The queue is full: it has {_PARTITIONS} partitions with {_VALUES} values and"
                f" {_PARTITION_BYTES} bytes each at most",
            )
        pairs = ((partition, value) for value in request.values)
        self._entries.put(queue_id, pairs, now + ttl, replace=False)
        self._changed[queue_id].fire()
        return Empty()

    async def _values(
        self, queue_id: str, key: bytes, count: int, after: int, timeout: float
    ) -> list[tuple[int, bytes]]:
        """Return values of a partition with their numbers; wait for the first. Raises GRPCError."""
        # Of a number that is none, neither is greater.
        seconds = min(timeout, _LONGEST_WAIT) if timeout > 0 else 0.0
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            partition, now = self._partition(queue_id, key), self._clock.now()
            found = self._entries.values(queue_id, partition, now, after=after, limit=count)
            left = deadline - loop.time()
            if found or left <= 0:
                size, most = 0, 0
                while most < len(found) and size <= _ANSWER_BYTES:
                    size += len(found[most][1])
                    most += 1
                return found[:most]
            await self._changed[queue_id].wait(left)

    @rpc("QueueGet")
    async def take(self, request: api.QueueGetRequest) -> api.QueueGetResponse:
        """Remove and return values. A repeated call gets those that were lost on their way."""
        key = idempotency_key.get()
        if not (answer := self._taken.find(key)):
            queue_id, partition = request.queue_id, request.partition_key
            count = min(max(request.n_values, 1), _VALUES)
            found = await self._values(queue_id, partition, count, 0, request.timeout)
            answer = api.QueueGetResponse(values=[value for _, value in found])
            if found:
                # Without a wait in between, so that no other call gets them too.
                self._entries.remove(queue_id, partition, until=found[-1][0])
            if found and key:
                self._taken.keep(key, answer)
        return answer

    @rpc("QueueNextItems")
    async def look(self, request: api.QueueNextItemsRequest) -> api.QueueNextItemsResponse:
        last = request.last_entry_id
        if last and not (last.isascii() and last.isdigit() and len(last) < 19):
            raise invalid(f"'{last}' is no entry id")
        found = await self._values(
            request.queue_id, request.partition_key, 100, int(last or 0), request.item_poll_timeout
        )
        items = [api.QueueItem(value=value, entry_id=str(number)) for number, value in found]
        return api.QueueNextItemsResponse(items=items)

    @rpc("QueueLen")
    async def length(self, request: api.QueueLenRequest) -> api.QueueLenResponse:
        partition = self._partition(request.queue_id, request.partition_key)
        if request.total:
            return api.QueueLenResponse(
                len=self._entries.totals(request.queue_id, self._clock.now())[1]
            )
        size = self._entries.sizes(request.queue_id, partition, self._clock.now())[0]
        return api.QueueLenResponse(len=size)

    @rpc("QueueClear")
    async def clear(self, request: api.QueueClearRequest) -> Empty:
        partition = self._partition(request.queue_id, request.partition_key)
        self._entries.remove(request.queue_id, None if request.all_partitions else partition)
        return Empty()
