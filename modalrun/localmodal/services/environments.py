"""Environments, and what the SDK asks about the workspace and its token."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from modal_proto import api_pb2

from modalrun.localmodal.server.auth import Guard
from modalrun.localmodal.server.rpc import Call, RpcError, not_found, rpc
from modalrun.localmodal.storage.ids import Clock, new_id
from modalrun.localmodal.storage.store import Store, Stored

# modal 1.6 raises VersionError for builder versions that it does not know; this one all know.
BUILDER_VERSION = "2025.06"
DEFAULT = "main"
WORKSPACE = "local"


class Environments:
    """The RPCs about environments; a state folder always has `main`."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        if not store.named("environment", "", DEFAULT):
            self._add(DEFAULT)

    def _add(self, name: str) -> Stored:
        item = Stored("environment", new_id("en"), self._clock.now(), name=name)
        self._store.put(item)
        return item

    def _find(self, name: str) -> Stored:
        found = self._store.named("environment", "", name or DEFAULT)
        if not found:
            raise not_found("Environment", name)
        return found[0]

    def resolve(self, name: str) -> str:
        """The name of an environment, "" being the default. Raises RpcError (NOT_FOUND)."""
        return self._find(name).name

    @rpc("EnvironmentGetOrCreate", create=True)
    async def get_or_create(
        self, request: api_pb2.EnvironmentGetOrCreateRequest, call: Call
    ) -> api_pb2.EnvironmentGetOrCreateResponse:
        name = request.deployment_name
        create = request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING
        if create and name and not self._store.named("environment", "", name):
            self._add(name)
        item = self._find(name)
        settings = api_pb2.EnvironmentSettings(image_builder_version=BUILDER_VERSION)
        return api_pb2.EnvironmentGetOrCreateResponse(
            environment_id=item.id,
            metadata=api_pb2.EnvironmentMetadata(name=item.name, settings=settings),
        )

    @rpc("EnvironmentCreate", create=True)
    async def create(self, request: api_pb2.EnvironmentCreateRequest, call: Call) -> Empty:
        if self._store.named("environment", "", request.name):
            raise RpcError(Status.ALREADY_EXISTS, f"Environment '{request.name}' already exists")
        self._add(request.name)
        return Empty()

    @rpc("EnvironmentList")
    async def list(self, request: Empty, call: Call) -> api_pb2.EnvironmentListResponse:
        items = [
            api_pb2.EnvironmentListItem(
                name=item.name,
                created_at=item.created_at,
                default=item.name == DEFAULT,
                environment_id=item.id,
                image_builder_version=BUILDER_VERSION,
            )
            for item in reversed(self._store.all("environment"))
        ]
        return api_pb2.EnvironmentListResponse(items=items)

    @rpc("EnvironmentDelete")
    async def delete(self, request: api_pb2.EnvironmentDeleteRequest, call: Call) -> Empty:
        item = self._find(request.name)
        if item.name == DEFAULT:
            raise RpcError(
                Status.FAILED_PRECONDITION, f"The environment '{DEFAULT}' cannot be deleted"
            )
        self._store.delete("environment", item.id)
        return Empty()


class Workspace:
    """What the SDK asks about itself: tokens, and greetings."""

    def __init__(self, guard: Guard, token_id: str) -> None:
        self._guard = guard
        self._token_id = token_id

    @rpc("ClientHello")
    async def hello(self, request: Empty, call: Call) -> api_pb2.ClientHelloResponse:
        return api_pb2.ClientHelloResponse(image_builder_version=BUILDER_VERSION)

    @rpc("AuthTokenGet")
    async def auth_token(
        self, request: api_pb2.AuthTokenGetRequest, call: Call
    ) -> api_pb2.AuthTokenGetResponse:
        return api_pb2.AuthTokenGetResponse(token=self._guard.sign("control-plane"))

    @rpc("WorkspaceNameLookup")
    async def workspace(self, request: Empty, call: Call) -> api_pb2.WorkspaceNameLookupResponse:
        return api_pb2.WorkspaceNameLookupResponse(workspace_name=WORKSPACE, username=WORKSPACE)

    @rpc("TokenInfoGet")
    async def token(
        self, request: api_pb2.TokenInfoGetRequest, call: Call
    ) -> api_pb2.TokenInfoGetResponse:
        return api_pb2.TokenInfoGetResponse(
            token_id=self._token_id,
            token_name="the token of this state folder",
            workspace_id="ws-local",
            workspace_name=WORKSPACE,
            user_identity=api_pb2.UserIdentity(user_id="us-local", username=WORKSPACE),
        )
