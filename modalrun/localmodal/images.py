"""Images: layers are accepted and recorded, nothing is built. What runs is the host's Python.

Of a recipe three things reach a sandbox: `ENV` and `WORKDIR` lines, and files that
`add_local_*(copy=True)` has put into a layer. All else (packages, commands) is only recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from google.protobuf.json_format import MessageToDict
from modal_proto import api_pb2

from modalrun.localmodal.environments import BUILDER_VERSION
from modalrun.localmodal.ids import Clock
from modalrun.localmodal.mounts import Mounts
from modalrun.localmodal.rootfs import File, Recipe, read_recipe
from modalrun.localmodal.rpc import Call, not_found, rpc
from modalrun.localmodal.store import Store, Stored

_SUCCESS = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
# Not part of the recipe: file contents, and the code of build functions.
_NOT_RECORDED = ("contextFiles", "buildFunction", "buildFunctionGlobals", "buildFunctionDef")


class Images:
    """The RPCs about images, and their recipes for whoever starts a sandbox."""

    def __init__(self, store: Store, clock: Clock, mounts: Mounts) -> None:
        self._store = store
        self._clock = clock
        self._mounts = mounts

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
        if self._store.get("image", image_id) is None:
            recipe = MessageToDict(request.image)
            for name in _NOT_RECORDED:
                recipe.pop(name, None)
            document = {"recipe": recipe, "builder_version": request.builder_version}
            self._store.put(
                Stored("image", image_id, self._clock.now(), name=request.app_id, document=document)
            )
        return api_pb2.ImageGetOrCreateResponse(
            image_id=image_id, result=_SUCCESS, metadata=self._metadata(image_id)
        )

    @rpc("ImageJoinStreaming")
    async def join(
        self, request: api_pb2.ImageJoinStreamingRequest, call: Call
    ) -> AsyncIterator[api_pb2.ImageJoinStreamingResponse]:
        yield api_pb2.ImageJoinStreamingResponse(
            result=_SUCCESS, eof=True, metadata=self._metadata(request.image_id)
        )

    @rpc("ImageFromId")
    async def from_id(
        self, request: api_pb2.ImageFromIdRequest, call: Call
    ) -> api_pb2.ImageFromIdResponse:
        return api_pb2.ImageFromIdResponse(
            image_id=self._get(request.image_id).id, metadata=self._metadata(request.image_id)
        )
