"""Serve the RPCs about dicts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2 as api

from modalrun.localmodal.server.rpc import invalid, rpc
from modalrun.localmodal.services.named import NamedService
from modalrun.localmodal.storage.store import Stored

# "7 days of inactivity (no reads or writes)" (docstring of `modal.Dict`, 1.6.4).
_TTL = 7 * 24 * 3600
_HOUR = 3600
_LARGEST = 100 * 1024 * 1024
"""Bytes of a key and its value (modal.com/docs/guide/dicts: 100 MiB for an object)."""


class Dicts(NamedService):
    """The RPCs about dicts. Keys and values are what the SDK has serialized."""

    kind = "dict"
    prefix = "di"
    plural = "dicts"

    def get_or_add(self, request: api.DictGetOrCreateRequest, **document: Any) -> Stored:
        item = super().get_or_add(request, **document)
        self._put(item.id, request.data)
        return item

    def listed(self, item: Stored, request: api.DictListRequest) -> Any:
        info = api.DictListResponse.DictInfo
        return self.about(info, item, name=item.name, created_at=item.created_at)

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
