"""Serve the RPCs about apps: deployed ones (`App.lookup`) and those of a `with app.run()`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

from modalrun.localmodal.sandbox.sandboxes import Sandboxes
from modalrun.localmodal.server.rpc import not_found, rpc
from modalrun.localmodal.services.rules import check_name
from modalrun.localmodal.services.service import Service
from modalrun.localmodal.storage.store import Store, Stored

# The SDK sends a heartbeat every 15 seconds while an ephemeral app runs (modal 1.6.4, runner.py).
_HEARTBEAT_LIMIT = 120.0
# A stopped app is listed for a while, as on Modal.
_RECENT = 24 * 3600


class Apps(Service):
    """The RPCs about apps."""

    kind = "app"
    prefix = "ap"

    def __init__(self, store: Store, sandboxes: Sandboxes, on_stop: Callable[[], None]) -> None:
        """`on_stop` is called when an app has stopped, so that readers of its logs end."""
        super().__init__(store)
        self._sandboxes = sandboxes
        self._on_stop = on_stop
        self._heartbeats: dict[str, asyncio.TimerHandle] = {}
        for app in store.all("app"):
            if app.document["state"] == api.APP_STATE_EPHEMERAL:
                self._finish(app)

    def get_active(self, app_id: str) -> Stored:
        """Return an app that is not stopped. Raises GRPCError (NOT_FOUND, FAILED_PRECONDITION)."""
        app = self.get(app_id)
        if self.is_stopped(app):
            raise GRPCError(Status.FAILED_PRECONDITION, f"App '{app_id}' is stopped")
        return app

    @staticmethod
    def is_stopped(app: Stored) -> bool:
        return bool(app.document["state"] == api.APP_STATE_STOPPED)

    def _deployed(self, environment: str, name: str) -> Stored | None:
        for app in self.named(environment, name):
            if app.document["state"] == api.APP_STATE_DEPLOYED:
                return app
        return None

    def deployed(self, environment: str, name: str) -> Stored:
        """Return the deployed app with a name. Raises GRPCError (NOT_FOUND)."""
        app = self._deployed(environment, name)
        if app is None:
            raise not_found("App", name)
        return app

    def _add(self, environment: str, name: str, state: int, tags: dict[str, str]) -> Stored:
        return self.add(environment, name, state=state, stopped_at=0.0, tags=tags)

    def _finish(self, app: Stored) -> None:
        app.document["state"] = api.APP_STATE_STOPPED
        app.document["stopped_at"] = self._clock.now()
        self._store.put(app)

    def _stop(self, app: Stored) -> None:
        if timer := self._heartbeats.pop(app.id, None):
            timer.cancel()
        if self.is_stopped(app):
            return
        self._finish(app)
        for record in self._sandboxes.running([app.id]):
            self._sandboxes.terminate(record.id, "Its app was stopped.")
        self._on_stop()

    def drop(self, object_id: str) -> None:
        self._stop(self.get(object_id))
        super().drop(object_id)

    def _expect_heartbeat(self, app_id: str) -> None:
        if timer := self._heartbeats.pop(app_id, None):
            timer.cancel()
        self._heartbeats[app_id] = asyncio.get_running_loop().call_later(
            _HEARTBEAT_LIMIT, lambda: self._stop(self.get(app_id))
        )

    def _lifecycle(self, app: Stored) -> api.AppLifecycle:
        return api.AppLifecycle(
            app_state=app.document["state"],
            created_at=app.created_at,
            created_by="local",
            deployed_at=app.created_at,
            version=1,
            stopped_at=app.document["stopped_at"],
        )

    def _metadata(self, app: Stored) -> api.AppHandleMetadata:
        return api.AppHandleMetadata(
            description=app.name,
            app_id=app.id,
            environment_name=app.environment,
            lifecycle=self._lifecycle(app),
        )

    @rpc("AppGetOrCreate")
    async def get_or_create(self, request: api.AppGetOrCreateRequest) -> api.AppGetOrCreateResponse:
        environment = self.resolve(request.environment_name)
        app = self._deployed(environment, request.app_name)
        if app is None:
            if request.object_creation_type != api.OBJECT_CREATION_TYPE_CREATE_IF_MISSING:
                raise not_found("App", request.app_name)
            check_name("App", request.app_name)
            app = self._add(environment, request.app_name, api.APP_STATE_DEPLOYED, {})
        return api.AppGetOrCreateResponse(app_id=app.id, handle_metadata=self._metadata(app))

    @rpc("AppLookup")
    async def lookup(self, request: api.AppLookupRequest) -> api.AppLookupResponse:
        environment = self.resolve(request.environment_name)
        app = self.deployed(environment, request.app_name)
        return api.AppLookupResponse(app_id=app.id)

    @rpc("AppGetByDeploymentName")
    async def by_name(
        self, request: api.AppGetByDeploymentNameRequest
    ) -> api.AppGetByDeploymentNameResponse:
        environment = self.resolve(request.environment_name)
        answer = api.AppGetByDeploymentNameResponse(environment_name=environment)
        if app := self._deployed(environment, request.name):
            answer.app_id = app.id
            answer.lifecycle.CopyFrom(self._lifecycle(app))
        elif stopped := self.named(environment, request.name):
            answer.previous_app_id = stopped[0].id
            answer.lifecycle.CopyFrom(self._lifecycle(stopped[0]))
        return answer

    @rpc("AppGetLifecycle")
    async def lifecycle(self, request: api.AppGetLifecycleRequest) -> api.AppGetLifecycleResponse:
        return api.AppGetLifecycleResponse(lifecycle=self._lifecycle(self.get(request.app_id)))

    @rpc("AppGetInfo")
    async def info(self, request: api.AppGetInfoRequest) -> api.AppGetInfoResponse:
        return api.AppGetInfoResponse(info=self._metadata(self.get(request.app_id)))

    @rpc("AppGetLayout")
    async def layout(self, request: api.AppGetLayoutRequest) -> api.AppGetLayoutResponse:
        self.get(request.app_id)
        return api.AppGetLayoutResponse(app_layout=api.AppLayout())

    @rpc("AppList")
    async def list(self, request: api.AppListRequest) -> api.AppListResponse:
        environment = self.resolve(request.environment_name)
        recent = self._clock.now() - _RECENT
        items = [
            api.AppListResponse.AppListItem(
                app_id=app.id,
                description=app.name,
                name=app.name,
                state=app.document["state"],
                created_at=app.created_at,
                stopped_at=app.document["stopped_at"],
                n_running_tasks=len(self._sandboxes.running([app.id])),
                metadata=self._metadata(app),
            )
            for app in self._store.all("app", environment)
            if not self.is_stopped(app) or app.document["stopped_at"] > recent
        ]
        return api.AppListResponse(apps=items)

    @rpc("AppStop")
    async def stop(self, request: api.AppStopRequest) -> Empty:
        self._stop(self.get(request.app_id))
        return Empty()

    @rpc("AppCreate", create=True)
    async def create(self, request: api.AppCreateRequest) -> api.AppCreateResponse:
        environment = self.resolve(request.environment_name)
        state = request.app_state or api.APP_STATE_EPHEMERAL
        if state == api.APP_STATE_INITIALIZING:
            state = api.APP_STATE_EPHEMERAL
        app = self._add(environment, request.description, state, dict(request.tags))
        if state == api.APP_STATE_EPHEMERAL:
            self._expect_heartbeat(app.id)
        page = f"https://modal.com/id/{app.id}"
        return api.AppCreateResponse(app_id=app.id, app_page_url=page, app_logs_url=page)

    @rpc("AppPublish")
    async def publish(self, request: api.AppPublishRequest) -> api.AppPublishResponse:
        app = self.get(request.app_id)
        if request.tags:
            app.document["tags"] = dict(request.tags)
            self._store.put(app)
        return api.AppPublishResponse(
            url=f"https://modal.com/id/{app.id}", deployed_at=app.created_at
        )

    @rpc("AppHeartbeat")
    async def heartbeat(self, request: api.AppHeartbeatRequest) -> Empty:
        app = self.get(request.app_id)
        if app.document["state"] == api.APP_STATE_EPHEMERAL:
            self._expect_heartbeat(app.id)
        return Empty()

    @rpc("AppClientDisconnect")
    async def disconnect(self, request: api.AppClientDisconnectRequest) -> Empty:
        app = self.get(request.app_id)
        if app.document["state"] == api.APP_STATE_EPHEMERAL:
            self._stop(app)
        return Empty()

    @rpc("AppSetTags")
    async def set_tags(self, request: api.AppSetTagsRequest) -> Empty:
        app = self.get(request.app_id)
        app.document["tags"] = dict(request.tags)
        self._store.put(app)
        return Empty()

    @rpc("AppGetTags")
    async def get_tags(self, request: api.AppGetTagsRequest) -> api.AppGetTagsResponse:
        return api.AppGetTagsResponse(tags=self.get(request.app_id).document["tags"])
