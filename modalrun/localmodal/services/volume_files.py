"""Serve the RPCs about the files of volumes, of both versions of VolumeFS.

They see what is committed. Links in a volume are listed, and never followed.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import posixpath
import stat
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

from modalrun.localmodal.server.auth import Guard
from modalrun.localmodal.server.http import Request, Response
from modalrun.localmodal.server.rpc import invalid, not_found, rpc
from modalrun.localmodal.services.mounts import Mounts
from modalrun.localmodal.services.volumes import Volumes
from modalrun.localmodal.storage.disk import Disk
from modalrun.localmodal.storage.tree import Item, Tree, relative, signature, split

_BLOCK = 8 * 1024 * 1024
"""The size of a block of a file (`BLOCK_SIZE` in `_utils/blob_utils.py`, modal 1.6.4)."""
_LARGEST = 1024**4
"""The size of the largest file (modal.com/docs/guide/volumes: 1 TiB)."""
_BATCH = 500
_RECURSIVE = "Pass recursive=True, or -r on the command line."
_CHUNK = 256 * 1024

_Entry = api.FileEntry
_TYPES = {
    stat.S_IFREG: _Entry.FILE,
    stat.S_IFDIR: _Entry.DIRECTORY,
    stat.S_IFLNK: _Entry.SYMLINK,
    stat.S_IFIFO: _Entry.FIFO,
    stat.S_IFSOCK: _Entry.SOCKET,
}


@contextmanager
def _problems(path: str) -> Iterator[str]:
    """Normalize the path of a client, and raise GRPCError for what it makes impossible."""
    try:
        yield relative(path)
    except (FileNotFoundError, NotADirectoryError):
        raise not_found("File", path) from None
    except FileExistsError:
        raise GRPCError(Status.ALREADY_EXISTS, f"'{path}' already exists") from None
    except ValueError as error:
        raise invalid(str(error)) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise invalid(f"'{path}': {error.strerror}") from None


class VolumeFiles:
    """The RPCs about the files of volumes, and the downloads of their blocks."""

    def __init__(self, volumes: Volumes, mounts: Mounts, guard: Guard, disk: Disk) -> None:
        self._volumes = volumes
        self._mounts = mounts
        self._guard = guard
        self._disk = disk

    @rpc("VolumeListFiles", "VolumeListFiles2")
    async def list_files(self, request: Any) -> AsyncIterator[Any]:
        is_second = isinstance(request, api.VolumeListFiles2Request)
        response = api.VolumeListFiles2Response if is_second else api.VolumeListFilesResponse
        tree = self._volumes.tree(request.volume_id)
        with _problems(request.path) as path:
            status = tree.status(path)
            if stat.S_ISDIR(status.st_mode):
                async with self._volumes.lock(request.volume_id):
                    found = await asyncio.to_thread(tree.scan, path, recursive=request.recursive)
            else:
                found = {path: status}
        most = request.max_entries if request.HasField("max_entries") else None
        entries = (_entry(path, status) for path, status in islice(sorted(found.items()), most))
        while batch := list(islice(entries, _BATCH)):
            yield response(entries=batch)

    @rpc("VolumeRemoveFile", "VolumeRemoveFile2")
    async def remove(
        self, request: api.VolumeRemoveFileRequest | api.VolumeRemoveFile2Request
    ) -> Empty:
        tree = self._volumes.tree(request.volume_id)
        with _problems(request.path) as path:
            status = tree.status(path)
            if stat.S_ISDIR(status.st_mode) and not request.recursive:
                raise invalid(f"'{request.path}' is a directory. {_RECURSIVE}")
            async with self._volumes.lock(request.volume_id):
                for name in [path] if path else tree.scan(recursive=False):
                    await asyncio.to_thread(tree.remove, name)
        return Empty()

    @rpc("VolumeCopyFiles", "VolumeCopyFiles2")
    async def copy(
        self, request: api.VolumeCopyFilesRequest | api.VolumeCopyFiles2Request
    ) -> Empty:
        """Copy as `cp` does."""
        tree = self._volumes.tree(request.volume_id)
        with _problems(request.dst_path) as target:
            found = tree.find(target)
            into = found is not None and stat.S_ISDIR(found.st_mode)
            if (len(request.src_paths) > 1 or request.dst_path.endswith("/")) and not into:
                raise invalid(f"'{request.dst_path}' is not a directory")
        items: list[Item] = []
        async with self._volumes.lock(request.volume_id):
            for source in request.src_paths:
                with _problems(source) as path:
                    place = posixpath.join(target, split(path)[1]) if into else target
                    items += await asyncio.to_thread(
                        _copies, tree, path, place, recursive=request.recursive
                    )
            self._disk.require(sum(item.status.st_size for item in items))
            with _problems(request.dst_path):
                await asyncio.to_thread(_check_kinds, tree, items)
                await asyncio.to_thread(tree.bring, tree, items)
        return Empty()

    @rpc("VolumePutFiles", create=True)
    async def put_v1(self, request: api.VolumePutFilesRequest) -> Empty:
        files = [_File(f.filename, f.mode, None, [f.sha256_hex]) for f in request.files]
        if missing := await self._put(request, files):
            raise not_found("File", files[missing[0][0]].path)
        return Empty()

    @rpc("VolumePutFiles2")
    async def put_v2(self, request: api.VolumePutFiles2Request) -> api.VolumePutFiles2Response:
        files = []
        for file in request.files:
            if len(file.blocks) != -(-file.size // _BLOCK):
                raise invalid(f"{len(file.blocks)} blocks are not those of {file.size} bytes")
            contents = [block.contents_sha256.hex() for block in file.blocks]
            files.append(_File(file.path, file.mode, file.size, contents))
            for block, content in zip(file.blocks, contents, strict=True):
                if block.put_response:
                    await self._mounts.adopt(block.put_response.decode(), content)
        missing = [
            api.VolumePutFiles2Response.MissingBlock(
                file_index=file, block_index=block, put_url=self._mounts.new_upload(_BLOCK)[1]
            )
            for file, block in await self._put(request, files)
        ]
        return api.VolumePutFiles2Response(missing_blocks=missing)

    async def _put(
        self,
        request: api.VolumePutFilesRequest | api.VolumePutFiles2Request,
        files: list[_File],
    ) -> list[tuple[int, int]]:
        """Put files into a volume; if contents are missing, return only where they belong."""
        tree = self._volumes.tree(request.volume_id)
        missing: dict[str, tuple[int, int]] = {}
        for number, file in enumerate(files):
            for place, content in enumerate(file.contents):
                if not self._mounts.have(content):
                    missing.setdefault(content, (number, place))
        if missing:
            return list(missing.values())
        async with self._volumes.lock(request.volume_id):
            for file in files:
                with _problems(file.path) as path:
                    status = tree.find(path)
                    if status is not None and stat.S_ISDIR(status.st_mode):
                        raise invalid(f"'{file.path}' is a directory")
                    if status is not None and request.disallow_overwrite_existing_files:
                        raise FileExistsError
            for file in files:
                contents = [self._mounts.content(content) for content in file.contents]
                sizes = [content.stat().st_size for content in contents]
                size = sum(sizes) if file.size is None else file.size
                if file.size is not None and max(sizes, default=0) > _BLOCK:
                    raise invalid(f"a block of '{file.path}' is too large")
                self._disk.require(size)
                parts = [(place * _BLOCK, content) for place, content in enumerate(contents)]
                with _problems(file.path) as path:
                    await asyncio.to_thread(tree.put, parts, size, file.mode, path)
        return []

    @rpc("VolumeGetFile2")
    async def get(self, request: api.VolumeGetFile2Request) -> api.VolumeGetFile2Response:
        with _problems(request.path) as path:
            status = self._volumes.tree(request.volume_id).status(path)
        size, start = status.st_size, request.start
        if not stat.S_ISREG(status.st_mode) or size > _LARGEST or start > size:
            raise invalid(f"'{request.path}' is no file that can be read from byte {start}")
        end = min(size, start + request.len) if request.len else size
        urls, offset = [], start
        while offset < end:
            until = min(end, (offset // _BLOCK + 1) * _BLOCK)
            block = [request.volume_id, path, offset, until - offset, signature(status)]
            urls.append(f"{self._guard.url}/volume/{self._guard.sign(json.dumps(block))}")
            offset = until
        return api.VolumeGetFile2Response(get_urls=urls, size=size, start=start, len=end - start)

    async def get_block(self, request: Request) -> Response:
        """Send the block of `GET /volume/TOKEN`; 404 if the file has changed meanwhile."""
        block = self._guard.signed_subject(request.path.split("/", 2)[2])
        if block is None:
            return Response(403)
        volume_id, path, offset, length, expected = json.loads(block)
        try:
            file = self._volumes.tree(volume_id).read(path)
        except (OSError, GRPCError):
            return Response(404)
        if signature(os.fstat(file.fileno())) != expected:
            file.close()
            return Response(404)
        headers = {"Content-Length": str(length)}
        return Response(200, headers=headers, stream=_read(file, offset, length))


@dataclass(frozen=True)
class _File:
    """A file to put: one content, or one for each block of `size` bytes."""

    path: str
    mode: int
    size: int | None
    contents: list[str]


async def _read(file: BinaryIO, offset: int, length: int) -> AsyncIterator[bytes]:
    with file:
        file.seek(offset)
        while length and (part := file.read(min(_CHUNK, length))):
            length -= len(part)
            yield part


def _entry(path: str, status: os.stat_result) -> api.FileEntry:
    kind = stat.S_IFMT(status.st_mode)
    return _Entry(
        # Not every name is UTF-8, which a message must be.
        path=os.fsencode(path).decode("utf-8", "replace"),
        type=_TYPES.get(kind, _Entry.UNSPECIFIED),
        mtime=max(0, int(status.st_mtime)),
        size=0 if kind == stat.S_IFDIR else status.st_size,
    )


def _copies(tree: Tree, source: str, target: str, *, recursive: bool) -> list[Item]:
    """Return what `cp` copies from one path to another."""
    status = tree.status(source)
    items = [Item(source, target, status)]
    if stat.S_ISDIR(status.st_mode):
        if not recursive:
            raise ValueError(
                f"'{source}' is a directory; pass recursive=True (modal volume cp -r) to copy it"
            )
        if f"{target}/".startswith(f"{source}/") or not source:
            raise ValueError(f"'{source}' cannot be copied into itself")
        found = tree.scan(source)
        items += [Item(p, target + p[len(source) :], s) for p, s in found.items()]
    elif source == target:
        raise ValueError(f"'{source}' and '{target}' are the same file")
    return items


def _check_kinds(tree: Tree, items: Iterable[Item]) -> None:
    """Raise ValueError where a directory would replace something else, or the other way round."""
    kinds: dict[str, bool] = {}
    for item in items:
        is_folder = stat.S_ISDIR(item.status.st_mode)
        if item.target not in kinds:
            there = tree.find(item.target)
            kinds[item.target] = is_folder if there is None else stat.S_ISDIR(there.st_mode)
        if is_folder and not kinds[item.target]:
            raise ValueError(f"'{item.target}' is no directory, but '{item.source}' is one")
        if kinds[item.target] and not is_folder:
            raise ValueError(f"'{item.target}' is a directory, but '{item.source}' is none")
