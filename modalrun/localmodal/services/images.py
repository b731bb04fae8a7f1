"""Record the layers of images; nothing is built, because sandboxes run the host's Python.

A sandbox gets what `recipe` reads of them: variables, files, ENTRYPOINT and CMD. Packages and
commands are recorded only. Builds fail because of a line that is wrong, or through fault injection
(see `faults`). With `--isolated-python` packages are installed: an image has a Python of its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import lru_cache
from textwrap import shorten

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

from modalrun.localmodal.sandbox.python_environment import (
    InstallError,
    Layer,
    PythonEnvironments,
)
from modalrun.localmodal.sandbox.recipe import File, Recipe, RecipeError
from modalrun.localmodal.server.rpc import not_found, rpc, warn
from modalrun.localmodal.services.mounts import Mounts
from modalrun.localmodal.services.rules import CatalogRules
from modalrun.localmodal.services.service import Service
from modalrun.localmodal.storage.store import Store, Stored
from modalrun.util.dockerfile import not_executed

BUILD_TASK = "ta-build-"
"""The prefix of a build's task id; the image id follows."""

_REMEMBERED = 1000
_FAILURE = api.GenericResult(status=api.GenericResult.GENERIC_STATUS_FAILURE)
_SUCCESS = api.GenericResult(status=api.GenericResult.GENERIC_STATUS_SUCCESS)
# Not part of the recipe: the code of build functions.
_NOT_RECORDED = ("buildFunction", "buildFunctionGlobals", "buildFunctionDef")


class Images(Service):
    """The RPCs about images, and the recipes that sandboxes start from."""

    kind = "image"
    prefix = "im"

    def __init__(
        self,
        store: Store,
        mounts: Mounts,
        *,
        failing_build: Callable[[Sequence[str]], list[str] | None],
        rules: CatalogRules,
        pythons: PythonEnvironments | None,
    ) -> None:
        """`failing_build` returns the log of a build that must fail, by its layer's commands."""
        super().__init__(store)
        self._mounts = mounts
        self._failing_build = failing_build
        self._rules = rules
        self._pythons = pythons
        # An id is a hash of what is read.
        self._read = lru_cache(_REMEMBERED)(self._read_once)

    def _layers(self, image_id: str) -> list[Stored]:
        """Return the layers of an image, the base first."""
        layers = [self.get(image_id)]
        while base := layers[0].document["recipe"].get("baseImages"):
            layers.insert(0, self.get(base[0]["imageId"]))
        return layers

    def _read_once(self, image_id: str) -> tuple[Recipe, list[Layer]]:
        """Return what a sandbox gets of an image, and what its Python is made of.

        Raises:
            RecipeError: The build of a layer fails.
        """
        recipe = Recipe()
        layers = []
        for layer in self._layers(image_id) if image_id else []:
            document = layer.document["recipe"]
            mount = document.get("contextMountId")
            context = self._mounts.files(mount) if mount else []
            for file in document.get("contextFiles", []):
                content = self._mounts.keep(base64.b64decode(file.get("data", "")))
                context.append(File(file["filename"], content))
            commands = document.get("dockerfileCommands", [])
            copied = len(recipe.files)
            recipe.add(commands, context, document.get("buildArgs"))
            layers.append(Layer(layer.id, commands, recipe.files[copied:]))
        return recipe, layers

    def recipe(self, image_id: str) -> Recipe:
        """Return what sandboxes get of an image. Raises GRPCError."""
        try:
            recipe, layers = self._read(image_id)
        except RecipeError as error:
            raise GRPCError(
                Status.FAILED_PRECONDITION, f"Image '{image_id}' was not built: {error}"
            ) from None
        recipe.python = self._python(image_id, layers)
        return recipe

    def _python(self, image_id: str, layers: Sequence[Layer]) -> str:
        """Return the folder of an image's own Python; empty if the host's is used."""
        if self._pythons is None or not image_id:
            return ""
        if not self._pythons.is_ready(layers):
            raise GRPCError(
                Status.FAILED_PRECONDITION,
                f"The Python of image '{image_id}' is not installed: build the image again",
            )
        return str(self._pythons.prefix(layers))

    def _metadata(self, image_id: str) -> api.ImageMetadata:
        return api.ImageMetadata(
            image_builder_version=self.get(image_id).document["builder_version"],
            workdir=self.recipe(image_id).workdir or None,
        )

    @rpc("ImageGetOrCreate")
    async def get_or_create(
        self, request: api.ImageGetOrCreateRequest
    ) -> api.ImageGetOrCreateResponse:
        self._rules.check_builder(request.builder_version)
        for base in request.image.base_images:
            self.get(base.image_id)
        if request.image.context_mount_id:
            self._mounts.files(request.image.context_mount_id)
        # Like on Modal, the same layer on the same base is the same image.
        content = request.image.SerializeToString(deterministic=True)
        image_id = "im-" + hashlib.sha256(content).hexdigest()[:22]
        failure = self._failing_build(request.image.dockerfile_commands)
        known = self._store.get("image", image_id)
        if known is None or failure is not None or "failure" in known.document:
            recipe = MessageToDict(request.image)
            for name in _NOT_RECORDED:
                recipe.pop(name, None)
            document = {"recipe": recipe, "builder_version": request.builder_version}
            known = Stored(
                "image", image_id, self._clock.now(), name=request.app_id, document=document
            )
            self._store.put(known)
            failure = failure or self._mistake(image_id)
            if failure is not None:
                document["failure"] = failure
                self._store.put(known)
        if failure is None:
            self._warn(image_id, is_base=not request.image.base_images)
        if failure is not None or not self._is_built(image_id):
            # Without a result the client joins the build.
            return api.ImageGetOrCreateResponse(image_id=image_id)
        return api.ImageGetOrCreateResponse(
            image_id=image_id, result=_SUCCESS, metadata=self._metadata(image_id)
        )

    def _warn(self, image_id: str, *, is_base: bool) -> None:
        """Name what the last layer of an image asks for and a sandbox does not get."""
        recipe, layers = self._read(image_id)
        # The SDK writes the lines of a base.
        runs = [] if is_base else not_executed(layers[-1].runs, installs=self._pythons is not None)
        lacks = [f"RUN {shorten(run, 200)} (commands are not executed)" for run in runs]
        for note in (*dict.fromkeys(lacks), *recipe.notes):
            warn(f"The local Modal server does not do this of an image: {note}")

    def _mistake(self, image_id: str) -> list[str] | None:
        """Return the log of a build that fails because of its Dockerfile; None for others."""
        try:
            self._read(image_id)
        except RecipeError as error:
            return [str(error)]
        return None

    def _is_built(self, image_id: str) -> bool:
        return self._pythons is None or self._pythons.is_ready(self._read(image_id)[1])

    @rpc("ImageJoinStreaming")
    async def join(
        self, request: api.ImageJoinStreamingRequest
    ) -> AsyncIterator[api.ImageJoinStreamingResponse]:
        image = self.get(request.image_id)
        failure = image.document.get("failure")
        if failure is None and self._pythons is not None:
            log: list[str] = []
            try:
                async for line in self._pythons.make(self._read(image.id)[1]):
                    log.append(line)
                    entry = api.TaskLogs(data=f"{line}\n")
                    yield api.ImageJoinStreamingResponse(task_logs=[entry], entry_id=str(len(log)))
            except (InstallError, OSError) as error:
                image.document["failure"] = [*log, str(error)]
                self._store.put(image)
                yield api.ImageJoinStreamingResponse(result=_FAILURE, eof=True)
                return
        if failure is not None:
            logs = (api.TaskLogs(data=f"{line}\n") for line in failure)
            yield api.ImageJoinStreamingResponse(task_logs=logs, entry_id="1")
            yield api.ImageJoinStreamingResponse(result=_FAILURE, eof=True)
            return
        yield api.ImageJoinStreamingResponse(
            result=_SUCCESS, eof=True, metadata=self._metadata(request.image_id)
        )

    @rpc("ImageBuildChainGet")
    async def build_chain(
        self, request: api.ImageBuildChainGetRequest
    ) -> api.ImageBuildChainGetResponse:
        steps = []
        for layer in self._layers(request.image_id):
            built = Timestamp(seconds=int(layer.created_at))
            steps.append(
                api.ImageBuildStep(
                    image_id=layer.id,
                    started_at=built,
                    finished_at=Timestamp(seconds=built.seconds + 1),
                    builder_app_id=layer.name,
                    builder_task_id=f"{BUILD_TASK}{layer.id}",
                )
            )
        return api.ImageBuildChainGetResponse(build_steps=steps)

    def build_log(self, task_id: str, newest: int) -> list[api.TaskLogsBatch]:
        """Return the `newest` lines of the log of the build that ran in a task."""
        image = self.get(task_id.removeprefix(BUILD_TASK))
        lines = image.document.get("failure", [])
        if not lines and self._pythons is None:
            layer = Layer(image.id, image.document["recipe"].get("dockerfileCommands", []))
            lines = [f"Not executed on this machine: {run}" for run in layer.runs]
        items = [
            api.TaskLogs(
                data=f"{line}\n",
                file_descriptor=api.FILE_DESCRIPTOR_STDOUT,
                timestamp=image.created_at,
                timestamp_ns=int(image.created_at * 1e9),
            )
            for line in lines[-newest:]
        ]
        return [api.TaskLogsBatch(task_id=task_id, items=items)] if items else []

    @rpc("ImagePublish")
    async def publish(self, request: api.ImagePublishRequest) -> api.ImagePublishResponse:
        environment, name = self._tag(request.tag, request.environment_name)
        document = {"image_id": self.get(request.image_id).id}
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
        return api.ImagePublishResponse(image_id=request.image_id)

    @rpc("ImageGetByTag")
    async def get_by_tag(self, request: api.ImageGetByTagRequest) -> api.ImageGetByTagResponse:
        environment, name = self._tag(request.tag, request.environment_name)
        published = self._store.get("image_name", f"{environment}/{name}")
        if published is None:
            raise not_found("Image", request.tag)
        return api.ImageGetByTagResponse(image_id=published.document["image_id"])

    def _tag(self, tag: str, default: str) -> tuple[str, str]:
        """Split "environment/name:tag" at the slash. Raises GRPCError (NOT_FOUND)."""
        environment, _, name = tag.rpartition("/")
        return self.resolve(environment or default), name

    @rpc("ImageFromId")
    async def from_id(self, request: api.ImageFromIdRequest) -> api.ImageFromIdResponse:
        return api.ImageFromIdResponse(
            image_id=self.get(request.image_id).id, metadata=self._metadata(request.image_id)
        )
