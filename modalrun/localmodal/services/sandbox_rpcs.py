"""Serve the RPCs about sandboxes, for both backends of the SDK, and those of `modal container`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import cast

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

from modalrun.localmodal.sandbox.live import Launch
from modalrun.localmodal.sandbox.sandboxes import Sandboxes
from modalrun.localmodal.server.auth import Guard
from modalrun.localmodal.server.faults import Faults
from modalrun.localmodal.server.rpc import idempotency_key, not_found, rpc, warn
from modalrun.localmodal.services.apps import Apps
from modalrun.localmodal.services.exec_rpcs import terminal_of
from modalrun.localmodal.services.images import Images
from modalrun.localmodal.services.mounts import Mounts
from modalrun.localmodal.services.rules import (
    CatalogRules,
    check_mount_points,
    check_name,
    check_ports,
    check_tags,
)
from modalrun.localmodal.services.secrets_rpcs import Secrets
from modalrun.localmodal.services.volumes import Volumes
from modalrun.localmodal.storage.ids import new_sandbox_ids
from modalrun.localmodal.storage.store import SandboxRecord, Store

_PAGE = 100
# The base of `debian_slim`, and what Modal runs without a command.
_PYTHON_IMAGE = re.compile(r"$|(\S+/)?python:")
_DEFAULT_COMMAND = ["sleep", "172800"]
_DEFAULT_WORKDIR = "/root"


def result_of(record: SandboxRecord) -> api.GenericResult:
    """Return how a sandbox ended; empty while it runs."""
    if not record.status:
        return api.GenericResult()
    return api.GenericResult(
        status=cast("api.GenericResult.GenericStatus.ValueType", record.status),
        exitcode=record.exitcode,
        exception=record.exception,
    )


def _blocks_network(definition: api.Sandbox) -> bool:
    access = definition.network_access.network_access_type
    return definition.block_network or access == api.NetworkAccess.BLOCKED


def _tags(tags: dict[str, str]) -> list[api.SandboxTag]:
    return [api.SandboxTag(tag_name=name, tag_value=value) for name, value in tags.items()]


@dataclass(frozen=True)
class SandboxRpcs:
    """The RPCs about sandboxes."""

    _store: Store
    _guard: Guard
    _apps: Apps
    _images: Images
    _mounts: Mounts
    _secrets: Secrets
    _volumes: Volumes
    _sandboxes: Sandboxes
    _rules: CatalogRules
    _faults: Faults

    def _access(self, record: SandboxRecord) -> api.CommandRouterAccess:
        return api.CommandRouterAccess(url=self._guard.url, jwt=self._guard.sign(record.task_id))

    def _metadata(self, record: SandboxRecord) -> api.SandboxHandleMetadata:
        return api.SandboxHandleMetadata(result=result_of(record), app_id=record.app_id)

    def _create(
        self,
        request: api.SandboxCreateRequest | api.SandboxCreateV2Request,
        variables: dict[str, str],
        version: int,
    ) -> SandboxRecord:
        key = idempotency_key.get()
        if existing := self._store.sandbox_of_key(key):
            return existing
        app = self._apps.get_active(request.app_id)
        definition = request.definition
        if definition.network_access.network_access_type > api.NetworkAccess.BLOCKED:
            raise GRPCError(
                Status.UNIMPLEMENTED,
                "The local Modal server blocks the whole network (block_network) or nothing of it",
            )
        variables = {**definition.environment_variables.contents, **variables}
        terminal = None
        if definition.HasField("pty_info"):
            terminal, defaults = terminal_of(definition.pty_info)
            variables = {**defaults, **variables}
        tags = {tag.tag_name: tag.tag_value for tag in request.tags}
        if definition.name:
            check_name("Sandbox", definition.name)
        check_tags(tags)
        check_mount_points(definition.volume_mounts)
        check_ports(definition.open_ports.ports)
        self._rules.check_sandbox(definition)
        recipe = self._images.recipe(definition.image_id)
        files = [*recipe.files]
        for mount_id in definition.mount_ids:
            files += self._mounts.files(mount_id)
        command = [
            *(recipe.entrypoint or ()),
            *(definition.entrypoint_args or recipe.command or ()),
        ]
        if not command and not _PYTHON_IMAGE.match(recipe.base):
            warn(f"The command of {recipe.base} is not known here: the sandbox sleeps")
        sandbox_id, task_id = new_sandbox_ids(version)
        resources = definition.resources
        record = SandboxRecord(
            id=sandbox_id,
            task_id=task_id,
            app_id=app.id,
            app_name=app.name,
            environment=app.environment,
            created_at=self._store.clock.now(),
            name=definition.name,
            tags=tags,
            command=command or _DEFAULT_COMMAND,
            image_id=definition.image_id,
            workdir=definition.workdir or recipe.workdir or _DEFAULT_WORKDIR,
            variables=sorted(variables),
            timeout_secs=definition.timeout_secs,
            idle_timeout_secs=definition.idle_timeout_secs,
            milli_cpu=resources.milli_cpu,
            milli_cpu_max=resources.milli_cpu_max,
            memory_mb=resources.memory_mb,
            memory_mb_max=resources.memory_mb_max,
            gpu=resources.gpu_config.gpu_type,
            gpu_count=resources.gpu_config.count,
            cloud=definition.cloud_provider_str,
            regions=list(definition.scheduler_placement.regions),
            volumes=self._volumes.names(definition.volume_mounts),
            idempotency_key=key,
        )
        launch = Launch(
            recipe=recipe,
            files=files,
            volumes=self._volumes.mounted(sandbox_id, definition.volume_mounts),
            variables=variables,
            network=not _blocks_network(definition),
            terminal=terminal,
            ports=definition.open_ports.ports,
            probe=definition.readiness_probe if definition.HasField("readiness_probe") else None,
        )
        self._sandboxes.create(record, launch)
        for text in self._sandboxes.starter.isolation.not_kept(launch):
            warn(text)
        return record

    @rpc("SandboxCreate", create=True)
    async def create_v1(self, request: api.SandboxCreateRequest) -> api.SandboxCreateResponse:
        variables = self._secrets.values(request.definition.secret_ids)
        record = self._create(request, variables, 1)
        return api.SandboxCreateResponse(sandbox_id=record.id, metadata=self._metadata(record))

    @rpc("SandboxCreateV2", create=True)
    async def create_v2(self, request: api.SandboxCreateV2Request) -> api.SandboxCreateV2Response:
        variables = self._secrets.values(request.definition.secret_ids)
        variables |= request.ephemeral_secrets.contents
        variables |= self._secrets.values((), request.secret_sources)
        record = self._create(request, variables, 2)
        return api.SandboxCreateV2Response(
            sandbox_id=record.id,
            task_id=record.task_id,
            metadata=self._metadata(record),
            command_router_access=self._access(record),
        )

    @rpc("SandboxGetTaskId", "SandboxGetTaskIdV2")
    async def task_id(self, request: api.SandboxGetTaskIdRequest) -> api.SandboxGetTaskIdResponse:
        record = self._sandboxes.find(request.sandbox_id)
        result = result_of(record) if record.status else None
        task_id = record.task_id if record.scheduled else ""
        return api.SandboxGetTaskIdResponse(task_id=task_id, task_result=result)

    @rpc("SandboxWait", "SandboxWaitV2")
    async def wait(self, request: api.SandboxWaitRequest) -> api.SandboxWaitResponse:
        record = await self._sandboxes.wait(request.sandbox_id, request.timeout)
        return api.SandboxWaitResponse(result=result_of(record), metadata=self._metadata(record))

    @rpc("SandboxTerminate", "SandboxTerminateV2")
    async def terminate(self, request: api.SandboxTerminateRequest) -> api.SandboxTerminateResponse:
        record = self._sandboxes.find(request.sandbox_id)
        self._sandboxes.terminate(record.id)
        existing = result_of(record) if record.status else None
        return api.SandboxTerminateResponse(existing_result=existing)

    @rpc("SandboxGetCommandRouterAccess")
    async def router_access(
        self, request: api.SandboxGetCommandRouterAccessRequest
    ) -> api.SandboxGetCommandRouterAccessResponse:
        if request.task_id:
            record = self._sandboxes.of_task(request.task_id)
        else:
            record = self._sandboxes.find(request.sandbox_id)
        access = self._access(record)
        return api.SandboxGetCommandRouterAccessResponse(jwt=access.jwt, url=access.url)

    @rpc("TaskGetCommandRouterAccess")
    async def task_router_access(
        self, request: api.TaskGetCommandRouterAccessRequest
    ) -> api.TaskGetCommandRouterAccessResponse:
        access = self._access(self._sandboxes.of_task(request.task_id))
        return api.TaskGetCommandRouterAccessResponse(jwt=access.jwt, url=access.url)

    def _info(self, record: SandboxRecord) -> api.SandboxInfo:
        value = api.ResourceInfo.ResourceValue
        return api.SandboxInfo(
            id=record.id,
            created_at=record.created_at,
            task_info=self._task_info(record),
            app_id=record.app_id,
            tags=_tags(record.tags),
            name=record.name,
            image_id=record.image_id,
            resource_info=api.ResourceInfo(
                memory_mb=value(value=record.memory_mb, is_default=not record.memory_mb),
                milli_cpu=value(value=record.milli_cpu, is_default=not record.milli_cpu),
                gpu_type=record.gpu,
                memory_mb_max=record.memory_mb_max,
                milli_cpu_max=record.milli_cpu_max,
            ),
            regions=record.regions,
            timeout_secs=record.timeout_secs,
            idle_timeout_secs=record.idle_timeout_secs or None,
            metadata=self._metadata(record),
        )

    def _task_info(self, record: SandboxRecord) -> api.TaskInfo:
        gpu = api.GPUConfig(gpu_type=record.gpu, count=record.gpu_count)
        return api.TaskInfo(
            id=record.task_id,
            enqueued_at=record.created_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
            result=result_of(record) if record.status else None,
            gpu_type=record.gpu,
            gpu_config=gpu if record.gpu else None,
            sandbox_id=record.id,
        )

    def _running(self, app_ids: list[str] | None) -> list[SandboxRecord]:
        """Return the running sandboxes, newest first: those of a moment ago if the list lags."""
        if not (lag := self._faults.script.lags.list):
            return self._sandboxes.running(app_ids)
        moment = self._store.clock.now() - lag
        return [
            replace(self._sandboxes.find(record.id), status=0, finished_at=0.0)
            for record in self._store.sandboxes_before(moment, app_ids, _PAGE * 10)
            if not record.finished_at or record.finished_at > moment
        ]

    @rpc("SandboxList", "SandboxListV2")
    async def list(self, request: api.SandboxListRequest) -> api.SandboxListResponse:
        app_ids = None
        if request.app_id:
            app_ids = [self._apps.get(request.app_id).id]
        elif request.environment_name:
            environment = self._apps.resolve(request.environment_name)
            app_ids = [app.id for app in self._store.all("app", environment)]
        before = request.before_timestamp or float("inf")
        tags = {tag.tag_name: tag.tag_value for tag in request.tags}.items()
        chosen: list[SandboxRecord] = []
        if not request.include_finished:
            running = self._running(app_ids)
            chosen = [r for r in running if r.created_at < before and tags <= r.tags.items()]
            return api.SandboxListResponse(sandboxes=map(self._info, chosen[:_PAGE]))
        while len(chosen) < _PAGE:
            page = self._store.sandboxes_before(before, app_ids, _PAGE)
            if not page:
                break
            before = page[-1].created_at
            chosen += [self._sandboxes.find(r.id) for r in page if tags <= r.tags.items()]
        return api.SandboxListResponse(sandboxes=map(self._info, chosen[:_PAGE]))

    @rpc("SandboxTagsGet", "SandboxTagsGetV2")
    async def get_tags(self, request: api.SandboxTagsGetRequest) -> api.SandboxTagsGetResponse:
        return api.SandboxTagsGetResponse(tags=_tags(self._sandboxes.find(request.sandbox_id).tags))

    @rpc("SandboxTagsSet", "SandboxTagsSetV2")
    async def set_tags(self, request: api.SandboxTagsSetRequest) -> Empty:
        record = self._sandboxes.find(request.sandbox_id)
        tags = {tag.tag_name: tag.tag_value for tag in request.tags}
        check_tags(tags)
        # First the disk, which may be full: a call that fails changes nothing.
        self._store.put_sandbox(replace(record, tags=tags))
        record.tags = tags
        return Empty()

    @rpc("SandboxGetFromName", "SandboxGetFromNameV2")
    async def from_name(
        self, request: api.SandboxGetFromNameRequest
    ) -> api.SandboxGetFromNameResponse:
        environment = self._apps.resolve(request.environment_name)
        app = self._apps.deployed(environment, request.app_name)
        for record in self._store.sandboxes_named(app.id, request.sandbox_name):
            if request.include_terminated or not record.status:
                return api.SandboxGetFromNameResponse(
                    sandbox_id=record.id, metadata=self._metadata(self._sandboxes.find(record.id))
                )
        raise not_found("Sandbox", f"{request.app_name}/{request.sandbox_name}")

    @rpc("SandboxStdinWrite")
    async def write_stdin(
        self, request: api.SandboxStdinWriteRequest
    ) -> api.SandboxStdinWriteResponse:
        await self._sandboxes.write_stdin(
            request.sandbox_id, request.input, index=request.index, eof=request.eof
        )
        return api.SandboxStdinWriteResponse()

    @rpc("TaskList")
    async def list_tasks(self, request: api.TaskListRequest) -> api.TaskListResponse:
        if request.app_id:
            running = self._sandboxes.running([self._apps.get(request.app_id).id])
        else:
            environment = self._apps.resolve(request.environment_name)
            running = [r for r in self._sandboxes.running() if r.environment == environment]
        tasks = [
            api.TaskStats(
                task_id=record.task_id,
                app_id=record.app_id,
                app_description=record.app_name,
                started_at=record.started_at,
                enqueued_at=record.created_at,
            )
            for record in running
        ]
        return api.TaskListResponse(tasks=tasks)

    @rpc("TaskGetInfo")
    async def get_task(self, request: api.TaskGetInfoRequest) -> api.TaskGetInfoResponse:
        record = self._sandboxes.of_task(request.task_id)
        return api.TaskGetInfoResponse(app_id=record.app_id, info=self._task_info(record))

    @rpc("ContainerStop")
    async def stop_container(self, request: api.ContainerStopRequest) -> api.ContainerStopResponse:
        self._sandboxes.terminate(self._sandboxes.of_task(request.task_id).id)
        return api.ContainerStopResponse()
