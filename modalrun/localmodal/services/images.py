"""Images: layers are accepted and recorded, nothing is built. What runs is the host's Python.

Of a recipe three things reach a sandbox: `ENV` and `WORKDIR` lines, and files that
`add_local_*(copy=True)` has put into a layer. All else (packages, commands) is only recorded. A
build fails on order (see `faults`); then its log can be had in the SDK's ways.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from modal_proto import api_pb2

from modalrun.localmodal.sandbox.rootfs import File, Recipe, read_recipe
from modalrun.localmodal.server.rpc import Call, not_found, rpc
from modalrun.localmodal.services.environments import BUILDER_VERSION, Environments
from modalrun.localmodal.services.mounts import Mounts
from modalrun.localmodal.storage.ids import Clock
from modalrun.localmodal.storage.store import Store, Stored

BUILD_TASK = "ta-build-"
"""How the tasks that builds run in begin; the rest is the id of the image."""

_FAILURE = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_FAILURE)
_SUCCESS = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
# Not part of the recipe: file contents, and the code of build functions.
_NOT_RECORDED = ("contextFiles", "buildFunction", "buildFunctionGlobals", "buildFunctionDef")


class Images:
    """The RPCs about images, and their recipes for whoever starts a sandbox."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        environments: Environments,
        mounts: Mounts,
        failing_build: Callable[[Sequence[str]], list[str] | None],
    ) -> None:
        self._store = store
        self._failing_build = failing_build
        self._clock = clock
        self._mounts = mounts
        self._environments = environments

    def _get(self, image_id: str) -> Stored:
        image = self._store.get("image", image_id)
        if image is None:
            raise not_found("Image", image_id)
        return image

    def _layers(self, image_id: str) -> list[Stored]:
        """The layers of an image, the first one first."""
        layers = [self._get(image_id)]
        while base := layers[0].document["recipe"].get("baseImages"):
            layers.insert(0, self._get(base[0]["imageId"]))
        return layers

    def recipe(self, image_id: str) -> tuple[Recipe, list[File]]:
        """What a sandbox takes from an image. Raises RpcError (NOT_FOUND)."""
        env: list[tuple[str, str]] = []
        files: list[File] = []
        workdir = ""
        command: list[str] = []
        for layer in self._layers(image_id) if image_id else []:
            document = layer.document["recipe"]
            commands = document.get("dockerfileCommands", [])
            part = read_recipe([f"WORKDIR {workdir}", *commands] if workdir else commands)
            env += part.env
            workdir = part.workdir or workdir
            command = part.command or command
            context = document.get("contextMountId")
            if context and any(copy == (".", "/") for copy in part.copies):
                files += self._mounts.files(context)
        return Recipe(env, workdir, command=command), files

    def _metadata(self, image_id: str) -> api_pb2.ImageMetadata:
        recipe, _ = self.recipe(image_id)
        return api_pb2.ImageMetadata(
            image_builder_version=BUILDER_VERSION,
            workdir=recipe.workdir or None,
        )

    @rpc("ImageGetOrCreate")
    async def get_or_create(
        self, request: api_pb2.ImageGetOrCreateRequest, call: Call
    ) -> api_pb2.ImageGetOrCreateResponse:
        for base in request.image.base_images:
            self._get(base.image_id)
        if request.image.context_mount_id:
            self._mounts.files(request.image.context_mount_id)
        # The same layer on the same base is the same image, also in another process.
        content = request.image.SerializeToString(deterministic=True)
        image_id = "im-" + hashlib.sha256(content).hexdigest()[:22]
        failure = self._failing_build(request.image.dockerfile_commands)
        known = self._store.get("image", image_id)
        if known is None or failure is not None or "failure" in known.document:
            recipe = MessageToDict(request.image)
            for name in _NOT_RECORDED:
                recipe.pop(name, None)
            document = {"recipe": recipe, "builder_version": request.builder_version}
            if failure is not None:
                document["failure"] = failure
            self._store.put(
                Stored("image", image_id, self._clock.now(), name=request.app_id, document=document)
            )
        if failure is not None:
            # Without a result the client joins the build, and is told there.
            return api_pb2.ImageGetOrCreateResponse(image_id=image_id)
        return api_pb2.ImageGetOrCreateResponse(
            image_id=image_id, result=_SUCCESS, metadata=self._metadata(image_id)
        )

    @rpc("ImageJoinStreaming")
    async def join(
        self, request: api_pb2.ImageJoinStreamingRequest, call: Call
    ) -> AsyncIterator[api_pb2.ImageJoinStreamingResponse]:
        failure = self._get(request.image_id).document.get("failure")
        if failure is not None:
            logs = (api_pb2.TaskLogs(data=f"{line}\n") for line in failure)
            yield api_pb2.ImageJoinStreamingResponse(task_logs=logs, entry_id="1")
            yield api_pb2.ImageJoinStreamingResponse(result=_FAILURE, eof=True)
            return
        yield api_pb2.ImageJoinStreamingResponse(
            result=_SUCCESS, eof=True, metadata=self._metadata(request.image_id)
        )

    @rpc("ImageBuildChainGet")
    async def build_chain(
        self, request: api_pb2.ImageBuildChainGetRequest, call: Call
    ) -> api_pb2.ImageBuildChainGetResponse:
        steps = []
        for layer in self._layers(request.image_id):
            built = Timestamp(seconds=int(layer.created_at))
            steps.append(
                api_pb2.ImageBuildStep(
                    image_id=layer.id,
                    started_at=built,
                    finished_at=Timestamp(seconds=built.seconds + 1),
                    builder_app_id=layer.name,
                    builder_task_id=f"{BUILD_TASK}{layer.id}",
                )
            )
        return api_pb2.ImageBuildChainGetResponse(build_steps=steps)

    def build_log(self, task_id: str, newest: int) -> list[api_pb2.TaskLogsBatch]:
        """The log of the build that ran in a task, of which at most so many lines."""
        image = self._get(task_id.removeprefix(BUILD_TASK))
        lines = image.document.get("failure", [])[-newest:]
        items = [
            api_pb2.TaskLogs(
                data=f"{line}\n",
                file_descriptor=api_pb2.FILE_DESCRIPTOR_STDOUT,
                timestamp=image.created_at,
                timestamp_ns=int(image.created_at * 1e9),
            )
            for line in lines
        ]
        return [api_pb2.TaskLogsBatch(task_id=task_id, items=items)] if items else []

    @rpc("ImagePublish")
    async def publish(
        self, request: api_pb2.ImagePublishRequest, call: Call
    ) -> api_pb2.ImagePublishResponse:
        environment, name = self._tag(request.tag)
        document = {"image_id": self._get(request.image_id).id}
        self._store.put(
            Stored(
                "image_name",
                f"{environment}/{name}",
                self._clock.now(),
                environment=environment,
                name=name,
                document=document,
            )
        )
        return api_pb2.ImagePublishResponse(image_id=request.image_id)

    @rpc("ImageGetByTag")
    async def get_by_tag(
        self, request: api_pb2.ImageGetByTagRequest, call: Call
    ) -> api_pb2.ImageGetByTagResponse:
        environment, name = self._tag(request.tag)
        published = self._store.get("image_name", f"{environment}/{name}")
        if published is None:
            raise not_found("Image", request.tag)
        return api_pb2.ImageGetByTagResponse(image_id=published.document["image_id"])

    def _tag(self, tag: str) -> tuple[str, str]:
        """Environment and name of "environment/name:tag". Raises RpcError (NOT_FOUND)."""
        environment, _, name = tag.rpartition("/")
        return self._environments.resolve(environment), name

    @rpc("ImageFromId")
    async def from_id(
        self, request: api_pb2.ImageFromIdRequest, call: Call
    ) -> api_pb2.ImageFromIdResponse:
        return api_pb2.ImageFromIdResponse(
            image_id=self._get(request.image_id).id, metadata=self._metadata(request.image_id)
        )
