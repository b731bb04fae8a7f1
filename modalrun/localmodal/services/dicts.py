"""Serve the RPCs about dicts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2 as api

from modalrun.localmodal.server.rpc import invalid, rpc
from modalrun.localmodal.services.named import NamedService, creation_info
from modalrun.localmodal.storage.ids import Clock
from modalrun.localmodal.storage.store import Store, Stored

# "7 days of inactivity (no reads or writes)" (docstring of `modal.Dict`, 1.6.4).
_TTL = 7 * 24 * 3600
_HOUR = 3600
_LARGEST = 100 * 1024 * 1024
"""Bytes of a key and its value (modal.com/docs/guide/dicts: 100 MiB for an object)."""


class Dicts(NamedService):
    """The RPCs about dicts. Keys and values are what the SDK has serialized."""

    kind = "dict"
    prefix = "di"

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock)
        self._entries = store.entries

    @staticmethod
    def _metadata(item: Stored) -> api.DictMetadata:
        return api.DictMetadata(name=item.name, creation_info=creation_info(item))

    @rpc("DictGetOrCreate", create=True)
    async def get_or_create(
        self, request: api.DictGetOrCreateRequest
    ) -> api.DictGetOrCreateResponse:
        item = self.get_or_add(request)
        self._put(item.id, request.data)
        return api.DictGetOrCreateResponse(dict_id=item.id, metadata=self._metadata(item))

    @rpc("DictGetById")
    async def get_by_id(self, request: api.DictGetByIdRequest) -> api.DictGetByIdResponse:
        item = self.get(request.dict_id)
        return api.DictGetByIdResponse(dict_id=item.id, metadata=self._metadata(item))

    @rpc("DictList")
    async def list(self, request: api.DictListRequest) -> api.DictListResponse:
        dicts = [
            api.DictListResponse.DictInfo(
                name=item.name,
                created_at=item.created_at,
                dict_id=item.id,
                metadata=self._metadata(item),
            )
            for item in self.page(request)
        ]
        environment = self.resolve(request.environment_name)
        return api.DictListResponse(dicts=dicts, environment_name=environment)

    @rpc("DictHeartbeat")
    async def heartbeat(self, request: api.DictHeartbeatRequest) -> Empty:
        self.keep(request.dict_id)
        return Empty()

    def drop(self, object_id: str) -> None:
        super().drop(object_id)
        self._entries.remove(object_id)

    @rpc("DictDelete")
    async def delete(self, request: api.DictDeleteRequest) -> Empty:
        self.drop(request.dict_id)
        return Empty()

    @rpc("DictClear")
    async def clear(self, request: api.DictClearRequest) -> Empty:
        self._entries.remove(self.get(request.dict_id).id)
        return Empty()

    def _find(self, dict_id: str, key: bytes) -> bytes | None:
        """Return the value of a key, which now expires later."""
        now = self._clock.now()
        found = self._entries.values(self.get(dict_id).id, key, now)
        if not found:
            return None
        # Not at each read, which would be a write.
        self._entries.keep(dict_id, key, now + _TTL, unless_after=now + _TTL - _HOUR)
        return found[0][1]

    @rpc("DictGet")
    async def find(self, request: api.DictGetRequest) -> api.DictGetResponse:
        value = self._find(request.dict_id, request.key)
        return api.DictGetResponse(found=value is not None, value=value)

    @rpc("DictContains")
    async def contains(self, request: api.DictContainsRequest) -> api.DictContainsResponse:
        found = self._find(request.dict_id, request.key) is not None
        return api.DictContainsResponse(found=found)

    @rpc("DictPop", create=True)
    async def pop(self, request: api.DictPopRequest) -> api.DictPopResponse:
        value = self._find(request.dict_id, request.key)
        self._entries.remove(request.dict_id, request.key)
        return api.DictPopResponse(found=value is not None, value=value)

    @rpc("DictLen")
    async def length(self, request: api.DictLenRequest) -> api.DictLenResponse:
        item = self.get(request.dict_id)
        return api.DictLenResponse(len=self._entries.totals(item.id, self._clock.now())[0])

    def _put(self, dict_id: str, entries: Iterable[api.DictEntry]) -> None:
        pairs = [(entry.key, entry.value) for entry in entries]
        if any(len(key) + len(value) > _LARGEST for key, value in pairs):
            raise invalid(f"A key of a dict and its value have at most {_LARGEST} bytes")
        self._entries.put(dict_id, pairs, self._clock.now() + _TTL, replace=True)

    @rpc("DictUpdate", create=True)
    async def update(self, request: api.DictUpdateRequest) -> api.DictUpdateResponse:
        item, now = self.get(request.dict_id), self._clock.now()
        new = [
            entry
            for entry in request.updates
            if not (request.if_not_exists and self._entries.values(item.id, entry.key, now))
        ]
        self._put(item.id, new)
        return api.DictUpdateResponse(created=bool(new))

    @rpc("DictContents")
    async def contents(self, request: api.DictContentsRequest) -> AsyncIterator[api.DictEntry]:
        last = 0
        while page := self._entries.page(self.get(request.dict_id).id, self._clock.now(), last):
            for number, key, value in page:
                last = number
                yield api.DictEntry(
                    key=key if request.keys else b"", value=value if request.values else b""
                )
