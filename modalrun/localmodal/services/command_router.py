"""Serve the standard streams of V2 sandboxes by byte offset (Modal's second service).

A client authenticates with the signed token of one task.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from modal_proto import task_command_router_pb2 as router_pb2

from modalrun.localmodal.sandbox.sandboxes import Sandboxes
from modalrun.localmodal.server.faults import Faults
from modalrun.localmodal.server.rpc import invalid, rpc
from modalrun.localmodal.signals import follow
from modalrun.localmodal.storage.logstore import STDERR, STDOUT, LogStore

_DESCRIPTORS = {
    router_pb2.SANDBOX_STDIO_FILE_DESCRIPTOR_STDOUT: STDOUT,
    router_pb2.SANDBOX_STDIO_FILE_DESCRIPTOR_STDERR: STDERR,
}


@dataclass(frozen=True)
class CommandRouter:
    """The RPCs of `TaskCommandRouter` that sandboxes need."""

    _logs: LogStore
    _sandboxes: Sandboxes
    _faults: Faults

    @rpc("SandboxStdioReadV2")
    async def read_stdio(
        self, request: router_pb2.SandboxStdioReadV2Request
    ) -> AsyncIterator[router_pb2.SandboxStdioReadV2Response]:
        if (descriptor := _DESCRIPTORS.get(request.file_descriptor)) is None:
            raise invalid("SandboxStdioReadV2 reads stdout or stderr")
        record = self._sandboxes.of_task(request.task_id)
        with self._logs.reading(record.id) as log:
            offset = request.offset
            if (retained := self._faults.script.retained) is not None:
                offset = max(offset, log.size(descriptor) - retained)
            chunks = follow(
                partial(log.read, descriptor), offset, log.changed, lambda: log.complete
            )
            async with aclosing(chunks):
                async for data in chunks:
                    yield router_pb2.SandboxStdioReadV2Response(data=data, starting_offset=offset)
                    offset += len(data)

    @rpc("SandboxStdinWriteV2")
    async def write_stdin(
        self, request: router_pb2.SandboxStdinWriteV2Request
    ) -> router_pb2.SandboxStdinWriteV2Response:
        record = self._sandboxes.of_task(request.task_id)
        await self._sandboxes.write_stdin(
            record.id, request.data, offset=request.offset, eof=request.eof
        )
        return router_pb2.SandboxStdinWriteV2Response()
