"""Find, add and resolve the stored objects of one kind."""

from __future__ import annotations

from typing import Any, ClassVar

from modalrun.localmodal.server.rpc import not_found
from modalrun.localmodal.storage.ids import new_id
from modalrun.localmodal.storage.store import Store, Stored

DEFAULT_ENVIRONMENT = "main"


class Service:
    """The base class of services that store objects of one kind.

    Attributes:
        kind: The kind in the store, and the noun of error messages.
        prefix: The first letters of the ids.
    """

    kind: ClassVar[str]
    prefix: ClassVar[str]

    def __init__(self, store: Store) -> None:
        self._store = store
        self._clock = store.clock

    def get(self, object_id: str) -> Stored:
        """Return the object with an id. Raises GRPCError (NOT_FOUND)."""
        found = self._store.get(self.kind, object_id)
        if found is None:
            raise not_found(self.kind.capitalize(), object_id)
        return found

    def named(self, environment: str, name: str) -> list[Stored]:
        """Return the objects with a name in an environment, newest first."""
        return self._store.named(self.kind, environment, name)

    def page(self, request: Any) -> list[Stored]:
        """Return the named objects that a list request asks for, newest first."""
        environment = self.resolve(request.environment_name)
        before = request.pagination.created_before or float("inf")
        items = self._store.all(self.kind, environment)
        chosen = [item for item in items if item.name and item.created_at < before]
        return chosen[: request.pagination.max_objects or None]

    def add(self, environment: str, name: str, **document: Any) -> Stored:
        """Store a new object."""
        item = Stored(
            self.kind, new_id(self.prefix), self._clock.now(), environment, name, document
        )
        self._store.put(item)
        return item

    def drop(self, object_id: str) -> None:
        """Delete an object with its content. Raises GRPCError (NOT_FOUND)."""
        self._store.delete(self.kind, self.get(object_id).id)

    def resolve(self, environment: str) -> str:
        """Return an environment's name, the default for "". Raises GRPCError (NOT_FOUND)."""
        if not self._store.named("environment", "", environment or DEFAULT_ENVIRONMENT):
            raise not_found("Environment", environment)
        return environment or DEFAULT_ENVIRONMENT
