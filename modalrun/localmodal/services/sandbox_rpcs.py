"""The RPCs about sandboxes, for both of the SDK's backends, and those of `modal container`."""

from __future__ import annotations

from typing import cast

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from modal_proto import api_pb2

from modalrun.localmodal.sandbox.sandboxes import Plan, Sandboxes
from modalrun.localmodal.server.auth import Guard
from modalrun.localmodal.server.rpc import Call, RpcError, not_found, rpc
from modalrun.localmodal.services.apps import Apps
from modalrun.localmodal.services.environments import Environments
from modalrun.localmodal.services.images import Images
from modalrun.localmodal.services.mounts import Mounts
from modalrun.localmodal.services.secrets_rpcs import Secrets
from modalrun.localmodal.services.volumes import Volumes
from modalrun.localmodal.storage.ids import Clock, new_sandbox_ids
from modalrun.localmodal.storage.store import SandboxRecord, Store

_PAGE = 100
_DEFAULT_COMMAND = ["sleep", "172800"]
_DEFAULT_WORKDIR = "/root"


def result_of(record: SandboxRecord) -> api_pb2.GenericResult:
    """How a sandbox ended; empty while it runs."""
    if not record.status:
        return api_pb2.GenericResult()
    return api_pb2.GenericResult(
        status=cast("api_pb2.GenericResult.GenericStatus.ValueType", record.status),
        exitcode=record.exitcode,
        exception=record.exception,
    )


def _tags(tags: dict[str, str]) -> list[api_pb2.SandboxTag]:
    return [api_pb2.SandboxTag(tag_name=name, tag_value=value) for name, value in tags.items()]


class SandboxRpcs:
    """Requests in, records and plans out."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        guard: Guard,
        environments: Environments,
        apps: Apps,
        images: Images,
        mounts: Mounts,
        secrets: Secrets,
        volumes: Volumes,
        sandboxes: Sandboxes,
    ) -> None:
        self._store = store
        self._clock = clock
        self._guard = guard
        self._environments = environments
        self._apps = apps
        self._images = images
        self._mounts = mounts
        self._secrets = secrets
        self._volumes = volumes
        self._sandboxes = sandboxes
        self.base_url = ""

    def _access(self, record: SandboxRecord) -> api_pb2.CommandRouterAccess:
        return api_pb2.CommandRouterAccess(url=self.base_url, jwt=self._guard.sign(record.task_id))

    def _metadata(self, record: SandboxRecord) -> api_pb2.SandboxHandleMetadata:
        return api_pb2.SandboxHandleMetadata(result=result_of(record), app_id=record.app_id)

    def _create(
        self,
        request: api_pb2.SandboxCreateRequest | api_pb2.SandboxCreateV2Request,
        variables: dict[str, str],
        version: int,
        call: Call,
    ) -> SandboxRecord:
        if again := self._store.sandbox_of_key(call.idempotency_key):
            return again
        app = self._apps.open(request.app_id)
        asked = request.definition
        if asked.HasField("open_ports") and asked.open_ports.ports:
            raise RpcError(
                Status.UNIMPLEMENTED, "The local Modal server does not have tunnels (open ports)"
            )
        if asked.cloud_bucket_mounts or asked.nfs_mounts:
            raise RpcError(
                Status.UNIMPLEMENTED,
                "The local Modal server does not have CloudBucketMount and NetworkFileSystem",
            )
        recipe, files = self._images.recipe(asked.image_id)
        for mount_id in asked.mount_ids:
            files += self._mounts.files(mount_id)
        sandbox_id, task_id = new_sandbox_ids(version)
        resources = asked.resources
        record = SandboxRecord(
            id=sandbox_id,
            task_id=task_id,
            version=version,
            app_id=app.id,
            app_name=app.name,
            environment=app.environment,
            created_at=self._clock.now(),
            name=asked.name,
            tags={tag.tag_name: tag.tag_value for tag in request.tags},
            command=list(asked.entrypoint_args) or recipe.command or _DEFAULT_COMMAND,
            image_id=asked.image_id,
            workdir=asked.workdir or recipe.workdir or _DEFAULT_WORKDIR,
            variables=sorted(variables),
            timeout_secs=asked.timeout_secs,
            idle_timeout_secs=asked.idle_timeout_secs,
            milli_cpu=resources.milli_cpu,
            milli_cpu_max=resources.milli_cpu_max,
            memory_mb=resources.memory_mb,
            memory_mb_max=resources.memory_mb_max,
            gpu=resources.gpu_config.gpu_type,
            gpu_count=resources.gpu_config.count,
            cloud=asked.cloud_provider_str,
            regions=list(asked.scheduler_placement.regions),
            volumes=self._volumes.names(asked.volume_mounts),
            idempotency_key=call.idempotency_key,
        )
        plan = Plan(
            argv=record.command,
            recipe=recipe,
            workdir=record.workdir,
            files=files,
            volumes=self._volumes.folders(asked.volume_mounts),
            variables=variables,
        )
        self._sandboxes.create(record, plan)
        return record

    @rpc("SandboxCreate", create=True)
    async def create_v1(
        self, request: api_pb2.SandboxCreateRequest, call: Call
    ) -> api_pb2.SandboxCreateResponse:
        variables = self._secrets.values(request.definition.secret_ids)
        record = self._create(request, variables, 1, call)
        return api_pb2.SandboxCreateResponse(sandbox_id=record.id, metadata=self._metadata(record))

    @rpc("SandboxCreateV2", create=True)
    async def create_v2(
        self, request: api_pb2.SandboxCreateV2Request, call: Call
    ) -> api_pb2.SandboxCreateV2Response:
        variables = self._secrets.values(request.definition.secret_ids)
        variables.update(request.ephemeral_secrets.contents)
        for source in request.secret_sources:
            if source.WhichOneof("source") == "secret_id":
                variables.update(self._secrets.values([source.secret_id]))
            else:
                variables.update(source.env.contents)
        record = self._create(request, variables, 2, call)
        return api_pb2.SandboxCreateV2Response(
            sandbox_id=record.id,
            task_id=record.task_id,
            metadata=self._metadata(record),
            command_router_access=self._access(record),
        )

    @rpc("SandboxGetTaskId", "SandboxGetTaskIdV2")
    async def task_id(
        self, request: api_pb2.SandboxGetTaskIdRequest, call: Call
    ) -> api_pb2.SandboxGetTaskIdResponse:
        record = self._sandboxes.find(request.sandbox_id)
        result = result_of(record) if record.status else None
        return api_pb2.SandboxGetTaskIdResponse(task_id=record.task_id, task_result=result)

    @rpc("SandboxWait", "SandboxWaitV2")
    async def wait(
        self, request: api_pb2.SandboxWaitRequest, call: Call
    ) -> api_pb2.SandboxWaitResponse:
        record = await self._sandboxes.wait(request.sandbox_id, request.timeout)
        return api_pb2.SandboxWaitResponse(
            result=result_of(record), metadata=self._metadata(record)
        )

    @rpc("SandboxTerminate", "SandboxTerminateV2")
    async def terminate(
        self, request: api_pb2.SandboxTerminateRequest, call: Call
    ) -> api_pb2.SandboxTerminateResponse:
        record = self._sandboxes.find(request.sandbox_id)
        self._sandboxes.terminate(record.id)
        existing = result_of(record) if record.status else None
        return api_pb2.SandboxTerminateResponse(existing_result=existing)

    @rpc("SandboxGetCommandRouterAccess")
    async def router_access(
        self, request: api_pb2.SandboxGetCommandRouterAccessRequest, call: Call
    ) -> api_pb2.SandboxGetCommandRouterAccessResponse:
        if request.task_id:
            record = self._sandboxes.of_task(request.task_id)
        else:
            record = self._sandboxes.find(request.sandbox_id)
        access = self._access(record)
        return api_pb2.SandboxGetCommandRouterAccessResponse(jwt=access.jwt, url=access.url)

    @rpc("TaskGetCommandRouterAccess")
    async def task_router_access(
        self, request: api_pb2.TaskGetCommandRouterAccessRequest, call: Call
    ) -> api_pb2.TaskGetCommandRouterAccessResponse:
        access = self._access(self._sandboxes.of_task(request.task_id))
        return api_pb2.TaskGetCommandRouterAccessResponse(jwt=access.jwt, url=access.url)

    def _info(self, record: SandboxRecord) -> api_pb2.SandboxInfo:
        value = api_pb2.ResourceInfo.ResourceValue
        return api_pb2.SandboxInfo(
            id=record.id,
            created_at=record.created_at,
            task_info=self._task_info(record),
            app_id=record.app_id,
            tags=_tags(record.tags),
            name=record.name,
            image_id=record.image_id,
            resource_info=api_pb2.ResourceInfo(
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

    def _task_info(self, record: SandboxRecord) -> api_pb2.TaskInfo:
        gpu = api_pb2.GPUConfig(gpu_type=record.gpu, count=record.gpu_count)
        return api_pb2.TaskInfo(
            id=record.task_id,
            enqueued_at=record.created_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
            result=result_of(record) if record.status else None,
            gpu_type=record.gpu,
            gpu_config=gpu if record.gpu else None,
            sandbox_id=record.id,
        )

    @rpc("SandboxList", "SandboxListV2")
    async def list(
        self, request: api_pb2.SandboxListRequest, call: Call
    ) -> api_pb2.SandboxListResponse:
        app_ids = None
        if request.app_id:
            app_ids = [self._apps.get(request.app_id).id]
        elif request.environment_name:
            environment = self._environments.resolve(request.environment_name)
            app_ids = [app.id for app in self._store.all("app", environment)]
        before = request.before_timestamp or float("inf")
        wanted = {tag.tag_name: tag.tag_value for tag in request.tags}.items()
        chosen: list[SandboxRecord] = []
        if not request.include_finished:
            running = self._sandboxes.running(app_ids)
            chosen = [r for r in running if r.created_at < before and wanted <= r.tags.items()]
            return api_pb2.SandboxListResponse(sandboxes=map(self._info, chosen[:_PAGE]))
        while len(chosen) < _PAGE:
            page = self._store.sandboxes_before(before, app_ids, _PAGE)
            if not page:
                break
            before = page[-1].created_at
            chosen += [self._sandboxes.find(r.id) for r in page if wanted <= r.tags.items()]
        return api_pb2.SandboxListResponse(sandboxes=map(self._info, chosen[:_PAGE]))

    @rpc("SandboxTagsGet", "SandboxTagsGetV2")
    async def get_tags(
        self, request: api_pb2.SandboxTagsGetRequest, call: Call
    ) -> api_pb2.SandboxTagsGetResponse:
        return api_pb2.SandboxTagsGetResponse(
            tags=_tags(self._sandboxes.find(request.sandbox_id).tags)
        )

    @rpc("SandboxTagsSet", "SandboxTagsSetV2")
    async def set_tags(self, request: api_pb2.SandboxTagsSetRequest, call: Call) -> Empty:
        record = self._sandboxes.find(request.sandbox_id)
        record.tags = {tag.tag_name: tag.tag_value for tag in request.tags}
        self._store.put_sandbox(record)
        return Empty()

    @rpc("SandboxGetFromName", "SandboxGetFromNameV2")
    async def from_name(
        self, request: api_pb2.SandboxGetFromNameRequest, call: Call
    ) -> api_pb2.SandboxGetFromNameResponse:
        environment = self._environments.resolve(request.environment_name)
        app = self._apps.deployed(environment, request.app_name)
        if app is None:
            raise not_found("App", request.app_name)
        for record in self._store.sandboxes_named(app.id, request.sandbox_name):
            if request.include_terminated or not record.status:
                return api_pb2.SandboxGetFromNameResponse(
                    sandbox_id=record.id, metadata=self._metadata(self._sandboxes.find(record.id))
                )
        raise not_found("Sandbox", f"{request.app_name}/{request.sandbox_name}")

    @rpc("SandboxStdinWrite")
    async def write_stdin(
        self, request: api_pb2.SandboxStdinWriteRequest, call: Call
    ) -> api_pb2.SandboxStdinWriteResponse:
        record = self._sandboxes.find(request.sandbox_id)
        await self._sandboxes.write_stdin(
            record.id, request.input, index=request.index, eof=request.eof
        )
        return api_pb2.SandboxStdinWriteResponse()

    @rpc("TaskList")
    async def list_tasks(
        self, request: api_pb2.TaskListRequest, call: Call
    ) -> api_pb2.TaskListResponse:
        if request.app_id:
            running = self._sandboxes.running([self._apps.get(request.app_id).id])
        else:
            environment = self._environments.resolve(request.environment_name)
            running = [r for r in self._sandboxes.running() if r.environment == environment]
        tasks = [
            api_pb2.TaskStats(
                task_id=record.task_id,
                app_id=record.app_id,
                app_description=record.app_name,
                started_at=record.started_at,
                enqueued_at=record.created_at,
            )
            for record in running
        ]
        return api_pb2.TaskListResponse(tasks=tasks)

    @rpc("TaskGetInfo")
    async def get_task(
        self, request: api_pb2.TaskGetInfoRequest, call: Call
    ) -> api_pb2.TaskGetInfoResponse:
        record = self._sandboxes.of_task(request.task_id)
        return api_pb2.TaskGetInfoResponse(app_id=record.app_id, info=self._task_info(record))

    @rpc("ContainerStop")
    async def stop_container(
        self, request: api_pb2.ContainerStopRequest, call: Call
    ) -> api_pb2.ContainerStopResponse:
        self._sandboxes.terminate(self._sandboxes.of_task(request.task_id).id)
        return api_pb2.ContainerStopResponse()
