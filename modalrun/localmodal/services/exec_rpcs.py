"""Serve the RPCs about further commands in a sandbox (`Sandbox.exec`)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api
from modal_proto import task_command_router_pb2 as router

from modalrun.localmodal.sandbox.execs import Exec, command_inside
from modalrun.localmodal.sandbox.live import LiveSandbox
from modalrun.localmodal.sandbox.sandboxes import Sandboxes, ended
from modalrun.localmodal.server.rpc import invalid, not_found, rpc
from modalrun.localmodal.services.secrets_rpcs import Secrets
from modalrun.localmodal.storage.logstore import STDERR, STDOUT

_END_SECONDS = 1.0
"""How long after the end of its input a command may take to end."""

_DESCRIPTORS = {
    router.TASK_EXEC_STDIO_FILE_DESCRIPTOR_STDOUT: STDOUT,
    router.TASK_EXEC_STDIO_FILE_DESCRIPTOR_STDERR: STDERR,
}


def terminal_of(info: api.PTYInfo) -> tuple[tuple[int, int], dict[str, str]]:
    """Return rows and columns of a terminal, those of a usual one by default, and its variables."""
    variables = {"TERM": info.env_term or "xterm-256color"}
    if info.env_colorterm:
        variables["COLORTERM"] = info.env_colorterm
    return (info.winsz_rows or 24, info.winsz_cols or 80), variables


class ExecRpcs:
    """The RPCs `TaskExec...` of `TaskCommandRouter`."""

    def __init__(self, sandboxes: Sandboxes, secrets: Secrets) -> None:
        self._sandboxes = sandboxes
        self._secrets = secrets

    def _find(self, request: Any) -> Exec:
        found = self._sandboxes.live_task(request.task_id).execs.find(request.exec_id)
        if found is None:
            raise not_found("Exec", request.exec_id)
        return found

    @rpc("TaskExecStart")
    async def start(self, request: router.TaskExecStartRequest) -> router.TaskExecStartResponse:
        if not request.command_args:
            raise invalid("exec needs a command")
        live = self._sandboxes.live_task(request.task_id)
        await asyncio.shield(live.started)
        if live.command is None:
            raise ended(live.record.id)
        terminal = None
        variables = self._secrets.values(request.secret_ids, request.secret_sources)
        variables.update(request.env)
        if request.HasField("pty_info"):
            terminal, defaults = terminal_of(request.pty_info)
            variables = {**defaults, **variables}
        streams = []
        if request.stdout_config == router.TASK_EXEC_STDOUT_CONFIG_PIPE:
            streams.append(STDOUT)
        if request.stderr_config == router.TASK_EXEC_STDERR_CONFIG_PIPE:
            streams.append(STDERR)
        try:
            command = command_inside(
                live.command,
                request.command_args,
                variables,
                workdir=request.workdir,
                terminal=terminal,
            )
            started = await live.execs.start(
                request.exec_id,
                command,
                streams=streams,
                timeout=request.timeout_secs,
                at_end=partial(_at_end, live, request.command_args),
            )
        except ValueError as error:
            raise invalid(f"This can't be run: {error}") from None
        if not started:
            raise ended(live.record.id)
        return router.TaskExecStartResponse()

    @rpc("TaskExecStdioRead")
    async def read(
        self, request: router.TaskExecStdioReadRequest
    ) -> AsyncIterator[router.TaskExecStdioReadResponse]:
        found, descriptor = self._find(request), _DESCRIPTORS[request.file_descriptor]
        if found.is_closed:
            raise not_found("Output of exec", request.exec_id)
        async with aclosing(found.read(descriptor, request.offset)) as output:
            async for data in output:
                yield router.TaskExecStdioReadResponse(data=data)

    @rpc("TaskExecStdinWrite")
    async def write(
        self, request: router.TaskExecStdinWriteRequest
    ) -> router.TaskExecStdinWriteResponse:
        await _write(self._find(request), request.data, request.offset, eof=request.eof)
        return router.TaskExecStdinWriteResponse()

    @rpc("TaskExecStdinWriteStream")
    async def write_stream(
        self,
        request: router.TaskExecStdinWriteStreamRequest,
        rest: AsyncIterable[router.TaskExecStdinWriteStreamRequest],
    ) -> router.TaskExecStdinWriteStreamResponse:
        found, offset = self._find(request.start), request.start.offset
        async for message in rest:
            # Without the end, the client may have broken off.
            eof = message.WhichOneof("payload") == "end"
            await _write(found, message.data, offset, eof=eof)
            offset += len(message.data)
        return router.TaskExecStdinWriteStreamResponse()

    @rpc("TaskExecStdinStatus")
    async def stdin_status(
        self, request: router.TaskExecStdinStatusRequest
    ) -> router.TaskExecStdinStatusResponse:
        stdin = self._find(request).stdin
        return router.TaskExecStdinStatusResponse(
            num_bytes_written=stdin.written, closed=stdin.closed
        )

    @rpc("TaskExecWait")
    async def wait(self, request: router.TaskExecWaitRequest) -> router.TaskExecWaitResponse:
        return router.TaskExecWaitResponse(code=await asyncio.shield(self._find(request).ended))

    @rpc("TaskExecPoll")
    async def poll(self, request: router.TaskExecPollRequest) -> router.TaskExecPollResponse:
        ended = self._find(request).ended
        if not ended.done():
            return router.TaskExecPollResponse()
        return router.TaskExecPollResponse(code=ended.result())


async def _at_end(live: LiveSandbox, argv: Sequence[str]) -> str:
    """Commit the volumes after `sync`, as Modal does (modal.com/docs/guide/sandbox-files).

    Returns:
        Why not all is committed; empty if it is.
    """
    if any(re.search(r"\bsync\b", word) for word in argv):
        try:
            await live.launch.volumes.commit()
        except OSError as error:
            return f"Not all changes of the volumes are committed: {error}\n"
    return ""


async def _write(found: Exec, data: bytes, offset: int, *, eof: bool) -> None:
    try:
        await found.stdin.write(data, offset=offset, eof=eof)
    except BrokenPipeError:
        # Then the SDK asks whether it has ended, and takes a command that runs for a fault.
        await asyncio.wait({found.ended}, timeout=_END_SECONDS)
        raise GRPCError(Status.FAILED_PRECONDITION, "The input of this command is closed") from None
