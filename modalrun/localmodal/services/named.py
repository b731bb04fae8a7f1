"""Create, list and delete objects that have a name, or live as long as a client's heartbeat."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

from modalrun.localmodal.server.rpc import not_found
from modalrun.localmodal.services.rules import check_name
from modalrun.localmodal.services.service import Service
from modalrun.localmodal.storage.ids import Clock
from modalrun.localmodal.storage.store import Store, Stored

# The SDK sends a heartbeat every 300 seconds (modal 1.6.4, `EPHEMERAL_OBJECT_HEARTBEAT_SLEEP`).
_HEARTBEAT_LIMIT = 900.0


class _GetOrCreate(Protocol):
    deployment_name: str
    environment_name: str
    object_creation_type: api.ObjectCreationType.ValueType


class _List(Protocol):
    environment_name: str

    @property
    def pagination(self) -> api.ListPagination: ...


class NamedService(Service):
    """The base class of volumes, queues and dicts."""

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock)
        self._heartbeats: dict[str, asyncio.TimerHandle] = {}
        for item in store.all(self.kind):
            if not item.name:
                self.keep(item.id)

    def get_or_add(self, request: _GetOrCreate, **document: Any) -> Stored:
        """Find or create the object of a request. Raises GRPCError."""
        environment, name = self.resolve(request.environment_name), request.deployment_name
        kind, creation = self.kind.capitalize(), request.object_creation_type
        if creation == api.OBJECT_CREATION_TYPE_EPHEMERAL:
            item = self.add(environment, "", **document)
            self.keep(item.id)
            return item
        if name and (found := self.named(environment, name)):
            if creation == api.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
                raise GRPCError(Status.ALREADY_EXISTS, f"{kind} '{name}' already exists")
            return found[0]
        if creation == api.OBJECT_CREATION_TYPE_UNSPECIFIED:
            raise not_found(kind, name)
        check_name(kind, name)
        return self.add(environment, name, **document)

    def page(self, request: _List) -> list[Stored]:
        """Return the named objects that a list request asks for, newest first."""
        environment = self.resolve(request.environment_name)
        before = request.pagination.created_before or float("inf")
        items = self._store.all(self.kind, environment)
        chosen = [item for item in items if item.name and item.created_at < before]
        return chosen[: request.pagination.max_objects or None]

    def keep(self, object_id: str) -> None:
        """Keep an ephemeral object until the next heartbeat is missing. Raises GRPCError."""
        item = self.get(object_id)
        if timer := self._heartbeats.pop(object_id, None):
            timer.cancel()
        if not item.name:
            loop = asyncio.get_running_loop()
            self._heartbeats[object_id] = loop.call_later(_HEARTBEAT_LIMIT, self.drop, object_id)

    def drop(self, object_id: str) -> None:
        super().drop(object_id)
        if timer := self._heartbeats.pop(object_id, None):
            timer.cancel()


def creation_info(item: Stored) -> api.CreationInfo:
    """Return who created an object, and when."""
    return api.CreationInfo(created_at=item.created_at, created_by="local")
