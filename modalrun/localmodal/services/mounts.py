"""Serve the RPCs about mounts and blobs: uploaded files, stored once per content."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from google.protobuf.timestamp_pb2 import Timestamp
from modal_proto import api_pb2 as api

from modalrun.localmodal.sandbox.recipe import File
from modalrun.localmodal.server.auth import Guard
from modalrun.localmodal.server.http import Request, Response
from modalrun.localmodal.server.rpc import invalid, not_found, rpc
from modalrun.localmodal.services.service import Service
from modalrun.localmodal.storage.disk import Disk
from modalrun.localmodal.storage.ids import new_id
from modalrun.localmodal.storage.paths import StateDir
from modalrun.localmodal.storage.store import Store, Stored

_HEX = frozenset("0123456789abcdef")
_OWN_NAME = re.compile(r"[0-9a-f]{64}|(bl|up)-[0-9A-Za-z]{22}")
"""Contents, and uploads with and without an id."""


class Mounts(Service):
    """The RPCs about mounts and blobs, and the files that sandboxes start with."""

    kind = "mount"
    prefix = "mo"

    def __init__(self, state: StateDir, store: Store, guard: Guard, disk: Disk) -> None:
        super().__init__(store)
        self._disk = disk
        self._state = state
        self._guard = guard

    def content(self, sha256_hex: str) -> Path:
        """Return where a content is, if it is there. Raises GRPCError (INVALID_ARGUMENT)."""
        if len(sha256_hex) != 64 or not _HEX.issuperset(sha256_hex):
            raise invalid(f"'{sha256_hex}' is not a sha256 in lower-case hex")
        return self._state.blobs / sha256_hex

    def have(self, sha256_hex: str) -> bool:
        """Return whether a content is there, and keep it. Raises GRPCError (INVALID_ARGUMENT)."""
        try:
            # Mark the content as used, so that `forget` keeps it.
            os.utime(self.content(sha256_hex))
        except FileNotFoundError:
            return False
        return True

    def _upload(self, blob_id: str) -> Path:
        if not blob_id.startswith("bl-") or not blob_id[3:].isalnum():
            raise not_found("Blob", blob_id)
        return self._state.uploads / blob_id

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Name a file that is deleted afterwards, unless it was moved: an upload may break off."""
        temporary = self._state.uploads / new_id("up")
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def new_upload(self, size: int) -> tuple[str, str]:
        """Return the id and the URL of a new blob. Raises OSError if the disk is full."""
        self._disk.require(size)
        blob_id = new_id("bl")
        return blob_id, f"{self._guard.url}/blob/{blob_id}/{self._guard.sign(blob_id)}"

    async def adopt(self, blob_id: str, sha256_hex: str) -> None:
        """Keep an uploaded blob as a content. Raises GRPCError if it is another one."""
        upload = self._upload(blob_id)
        if upload.exists() or not self.have(sha256_hex):
            await asyncio.to_thread(_adopt, upload, self.content(sha256_hex), sha256_hex)

    def files(self, mount_id: str) -> list[File]:
        """Return the files of a mount. Raises GRPCError (NOT_FOUND)."""
        mount = self.get(mount_id)
        return [
            File(path, self._state.blobs / sha256_hex, mode)
            for path, sha256_hex, mode in mount.document["files"]
        ]

    def keep(self, data: bytes) -> Path:
        """Store a content; return its file."""
        sha256_hex = hashlib.sha256(data).hexdigest()
        if not self.have(sha256_hex):
            with self._temporary() as temporary:
                temporary.write_bytes(data)
                temporary.replace(self.content(sha256_hex))
        return self.content(sha256_hex)

    def forget(self, before: float) -> None:
        """Delete mounts, uploads and contents that were last used before a time."""
        self._store.delete_older("mount", before)
        for folder in (self._state.blobs, self._state.uploads):
            for path in folder.iterdir():
                if _OWN_NAME.fullmatch(path.name) and path.lstat().st_mtime < before:
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink(missing_ok=True)

    @rpc("MountBatchedCheckExistence")
    async def check(
        self, request: api.MountBatchedCheckExistenceRequest
    ) -> api.MountBatchedCheckExistenceResponse:
        missing = [name for name in request.sha256_hex_hashes if not self.have(name)]
        now = Timestamp()
        now.GetCurrentTime()
        return api.MountBatchedCheckExistenceResponse(
            missing_sha256_hex_hashes=missing, checked_at=now
        )

    @rpc("MountPutFile")
    async def put_file(self, request: api.MountPutFileRequest) -> api.MountPutFileResponse:
        self._disk.require(len(request.data))
        kind = request.WhichOneof("data_oneof")
        if kind == "data_blob_id":
            await self.adopt(request.data_blob_id, request.sha256_hex)
        elif kind == "data":
            if hashlib.sha256(request.data).hexdigest() != request.sha256_hex:
                raise invalid(f"the content of {request.sha256_hex} has another sha256")
            await asyncio.to_thread(self.keep, request.data)
        return api.MountPutFileResponse(exists=self.have(request.sha256_hex))

    @rpc("MountGetOrCreate", create=True)
    async def get_or_create(
        self, request: api.MountGetOrCreateRequest
    ) -> api.MountGetOrCreateResponse:
        name = request.deployment_name
        environment = self.resolve(request.environment_name)
        if name and request.object_creation_type == api.OBJECT_CREATION_TYPE_UNSPECIFIED:
            found = self.named(environment, name)
            # Modal's own mounts (its client, a Python build) are empty: the host has their content.
            mount = found[0] if found else self.add(environment, name, files=[])
            return self._answer(mount, [])
        files = []
        for file in request.files:
            path = PurePosixPath("/", file.filename)
            if ".." in path.parts:
                raise invalid(f"'{file.filename}' leaves the sandbox")
            if not self.have(file.sha256_hex):
                raise not_found("File", f"{file.filename} ({file.sha256_hex})")
            mode = file.mode if file.HasField("mode") else 0
            files.append((str(path), file.sha256_hex, mode))
        return self._answer(self.add(environment, name, files=files), files)

    @staticmethod
    def _answer(mount: Stored, files: list[tuple[str, str, int]]) -> api.MountGetOrCreateResponse:
        checksum = hashlib.sha256(json.dumps(sorted(files)).encode()).hexdigest()
        return api.MountGetOrCreateResponse(
            mount_id=mount.id,
            handle_metadata=api.MountHandleMetadata(content_checksum_sha256_hex=checksum),
        )

    @rpc("BlobCreate", create=True)
    async def create_blob(self, request: api.BlobCreateRequest) -> api.BlobCreateResponse:
        blob_id, url = self.new_upload(request.content_length)
        return api.BlobCreateResponse(
            blob_id=blob_id, blob_ids=[blob_id], upload_urls=api.UploadUrlList(items=[url])
        )

    async def put_blob(self, request: Request) -> Response:
        """Store the blob of `PUT /blob/ID/TOKEN`; return its md5, which the SDK checks, and id."""
        _, _, blob_id, token = request.path.split("/", 3)
        if self._guard.signed_subject(token) != blob_id:
            return Response(403)
        md5 = hashlib.md5(usedforsecurity=False)
        with self._temporary() as temporary:
            with temporary.open("wb") as file:
                async for part in request.body:
                    md5.update(part)
                    file.write(part)
            temporary.replace(self._upload(blob_id))
        return Response(200, blob_id.encode(), headers={"ETag": f'"{md5.hexdigest()}"'})


def _adopt(upload: Path, target: Path, sha256_hex: str) -> None:
    """Move an uploaded blob to its content's name after checking its sha256."""
    try:
        with upload.open("rb") as file:
            digest = hashlib.sha256()
            while part := file.read(1024 * 1024):
                digest.update(part)
    except FileNotFoundError:
        raise not_found("Blob", upload.name) from None
    if digest.hexdigest() != sha256_hex:
        raise invalid(f"the content of {sha256_hex} has another sha256")
    upload.replace(target)
