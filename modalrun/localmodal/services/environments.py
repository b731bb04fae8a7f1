"""Serve the RPCs about environments, the workspace and its token."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

from modalrun.localmodal.server.auth import Guard
from modalrun.localmodal.server.rpc import rpc
from modalrun.localmodal.services.rules import (
    CatalogRules,
    check_environment_name,
    newest_builder,
)
from modalrun.localmodal.services.service import DEFAULT_ENVIRONMENT, Service
from modalrun.localmodal.storage.store import Store, Stored

WORKSPACE = "local"


class Environments(Service):
    """The RPCs about environments; a state folder always has `main`."""

    kind = "environment"
    prefix = "en"

    def __init__(self, store: Store, rules: CatalogRules, contents: Iterable[Service]) -> None:
        """`contents` has the services whose objects are more than a record in the store."""
        super().__init__(store)
        self._rules = rules
        self._contents = contents
        if not self.named("", DEFAULT_ENVIRONMENT):
            self.add("", DEFAULT_ENVIRONMENT)

    def _find(self, name: str) -> Stored:
        return self.named("", self.resolve(name))[0]

    @rpc("EnvironmentGetOrCreate", create=True)
    async def get_or_create(
        self, request: api.EnvironmentGetOrCreateRequest
    ) -> api.EnvironmentGetOrCreateResponse:
        name = request.deployment_name
        create = request.object_creation_type == api.OBJECT_CREATION_TYPE_CREATE_IF_MISSING
        if create and name and not self.named("", name):
            check_environment_name(name)
            self.add("", name)
        item = self._find(name)
        builder = item.document.get("builder_version") or newest_builder()
        settings = api.EnvironmentSettings(image_builder_version=builder)
        return api.EnvironmentGetOrCreateResponse(
            environment_id=item.id,
            metadata=api.EnvironmentMetadata(name=item.name, settings=settings),
        )

    @rpc("EnvironmentCreate", create=True)
    async def create(self, request: api.EnvironmentCreateRequest) -> Empty:
        if self.named("", request.name):
            raise GRPCError(Status.ALREADY_EXISTS, f"Environment '{request.name}' already exists")
        check_environment_name(request.name)
        self.add("", request.name)
        return Empty()

    @rpc("EnvironmentUpdate")
    async def update(self, request: api.EnvironmentUpdateRequest) -> api.EnvironmentListItem:
        """Set the image builder version; "" for the workspace's, the newest."""
        item = self._find(request.current_name)
        if version := request.image_builder_version:
            self._rules.check_builder(version)
        item.document["builder_version"] = version
        self._store.put(item)
        return self._item(item)

    def _item(self, item: Stored) -> api.EnvironmentListItem:
        return api.EnvironmentListItem(
            name=item.name,
            created_at=item.created_at,
            default=item.name == DEFAULT_ENVIRONMENT,
            environment_id=item.id,
            image_builder_version=item.document.get("builder_version") or None,
        )

    @rpc("EnvironmentList")
    async def list(self, request: Empty) -> api.EnvironmentListResponse:
        items = map(self._item, reversed(self._store.all("environment")))
        return api.EnvironmentListResponse(items=items)

    @rpc("EnvironmentDelete")
    async def delete(self, request: api.EnvironmentDeleteRequest) -> Empty:
        item = self._find(request.name)
        if item.name == DEFAULT_ENVIRONMENT:
            raise GRPCError(
                Status.FAILED_PRECONDITION,
                f"The environment '{DEFAULT_ENVIRONMENT}' cannot be deleted",
            )
        for service in self._contents:
            for content in self._store.all(service.kind, item.name):
                service.drop(content.id)
        self._store.delete_all(item.name)
        self.drop(item.id)
        return Empty()


class Workspace:
    """The RPCs about the client, its token and its workspace."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    @rpc("ClientHello")
    async def hello(self, request: Empty) -> api.ClientHelloResponse:
        return api.ClientHelloResponse(image_builder_version=newest_builder())

    @rpc("AuthTokenGet")
    async def auth_token(self, request: api.AuthTokenGetRequest) -> api.AuthTokenGetResponse:
        return api.AuthTokenGetResponse(token=self._guard.sign("control-plane"))

    @rpc("WorkspaceNameLookup")
    async def workspace(self, request: Empty) -> api.WorkspaceNameLookupResponse:
        return api.WorkspaceNameLookupResponse(workspace_name=WORKSPACE, username=WORKSPACE)

    @rpc("TokenInfoGet")
    async def token(self, request: api.TokenInfoGetRequest) -> api.TokenInfoGetResponse:
        return api.TokenInfoGetResponse(
            token_id=self._guard.token_id,
            token_name="the token of this server",  # noqa: S106 (not a secret)
            workspace_id="ws-local",
            workspace_name=WORKSPACE,
            user_identity=api.UserIdentity(user_id="us-local", username=WORKSPACE),
        )
