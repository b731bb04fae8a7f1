"""Create, list and delete objects that have a name, or live as long as a client's heartbeat."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

from modalrun.localmodal.server.rpc import not_found, rpc
from modalrun.localmodal.services.rules import check_name
from modalrun.localmodal.services.service import Service
from modalrun.localmodal.storage.store import Store, Stored

# The SDK sends a heartbeat every 300 seconds (modal 1.6.4, `EPHEMERAL_OBJECT_HEARTBEAT_SLEEP`).
_HEARTBEAT_LIMIT = 900.0


class NamedService(Service):
    """The base class of volumes, queues and dicts. `NamedRpcs` calls it.

    Attributes:
        plural: The field of a list's answer that has the objects.
    """

    plural: ClassVar[str]

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._entries = store.entries
        self._heartbeats: dict[str, asyncio.TimerHandle] = {}
        for item in store.all(self.kind):
            if not item.name:
                self.keep(item.id)

    def get_or_add(self, request: Any, **document: Any) -> Stored:
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

    def about(self, message: Any, item: Stored, **more: Any) -> Any:
        """Return a message with the id and the metadata of an object, and more."""
        info = api.CreationInfo(created_at=item.created_at, created_by="local")
        metadata = getattr(api, f"{self.kind.capitalize()}Metadata")
        metadata = metadata(name=item.name, creation_info=info, **item.document)
        return message(**{f"{self.kind}_id": item.id}, metadata=metadata, **more)

    def listed(self, item: Stored, request: Any) -> Any:
        """Return an object as the answer to a list request has it."""
        raise NotImplementedError

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
        self._entries.remove(object_id)
        if timer := self._heartbeats.pop(object_id, None):
            timer.cancel()


class NamedRpcs:
    """The RPCs that volumes, queues and dicts have in common."""

    def __init__(self, *services: NamedService) -> None:
        self._services = services

    def _of(self, request: Any) -> tuple[NamedService, str, Any]:
        """Return the service of a request, the id in it, and the message that answers it."""
        name = request.DESCRIPTOR.name
        service = next(one for one in self._services if name.startswith(one.kind.capitalize()))
        answer = getattr(api, name.replace("Request", "Response"), Empty)
        return service, getattr(request, f"{service.kind}_id", ""), answer

    @rpc("VolumeGetOrCreate", "QueueGetOrCreate", "DictGetOrCreate", create=True)
    async def get_or_create(self, request: Any) -> Any:
        service, _, answer = self._of(request)
        item = service.get_or_add(request)
        return service.about(answer, item, **item.document)

    @rpc("VolumeGetById", "QueueGetById", "DictGetById")
    async def get_by_id(self, request: Any) -> Any:
        service, object_id, answer = self._of(request)
        return service.about(answer, service.get(object_id))

    @rpc("VolumeList", "QueueList", "DictList")
    async def list(self, request: Any) -> Any:
        service, _, answer = self._of(request)
        environment = service.resolve(request.environment_name)
        items = [service.listed(item, request) for item in service.page(request)]
        return answer(**{service.plural: items}, environment_name=environment)

    @rpc("VolumeHeartbeat", "QueueHeartbeat", "DictHeartbeat")
    async def heartbeat(self, request: Any) -> Any:
        service, object_id, answer = self._of(request)
        service.keep(object_id)
        return answer()

    @rpc("VolumeDelete", "QueueDelete", "DictDelete")
    async def delete(self, request: Any) -> Any:
        service, object_id, answer = self._of(request)
        service.drop(object_id)
        return answer()
