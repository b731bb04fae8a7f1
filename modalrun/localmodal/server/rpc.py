"""Dispatch RPCs to the methods that are marked with `rpc`.

The table is built from the descriptors of the installed modal wheel. An RPC that has no handler, or
that only a newer SDK knows, is answered with UNIMPLEMENTED and its name.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from google.protobuf import message_factory
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from modal_proto import api_pb2, task_command_router_pb2

from modalrun.localmodal.server import fields
from modalrun.localmodal.server.answers import Answers
from modalrun.localmodal.server.faults import Fault

log = logging.getLogger(__name__)

CONTROL_PLANE = "modal.client.ModalClient"
COMMAND_ROUTER = "modal.task_command_router.TaskCommandRouter"

idempotency_key: ContextVar[str] = ContextVar("idempotency_key")
"""The idempotency key of the current call; "" for none."""

client_version: ContextVar[str] = ContextVar("client_version")
"""The version of the SDK that makes the current call; "" if it does not say."""

peer_port: ContextVar[int] = ContextVar("peer_port")
"""The port from which the current call came."""

_warnings: ContextVar[list[str]] = ContextVar("warnings")
_WARNING_HEADER = "x-modal-warning"
"""What the SDK issues as a ServerWarning (`modal/_utils/grpc_utils.py`, 1.6.4)."""


def not_found(kind: str, name: str) -> GRPCError:
    return GRPCError(Status.NOT_FOUND, f"{kind} '{name}' not found on the local Modal server")


def invalid(message: str) -> GRPCError:
    return GRPCError(Status.INVALID_ARGUMENT, message)


def unimplemented(rpc_name: str) -> GRPCError:
    return GRPCError(Status.UNIMPLEMENTED, f"The local Modal server does not have {rpc_name}")


def warn(text: str) -> None:
    """Have the SDK show a warning with the answer to the current call."""
    _warnings.get().append(text)


_F = TypeVar("_F", bound=Callable[..., Any])


def rpc(*names: str, create: bool = False) -> Callable[[_F], _F]:
    """Mark a method as the handler of RPCs.

    With `create`, a call repeated with the same idempotency key gets the first call's answer.
    """

    def mark(function: _F) -> _F:
        function.__rpcs__ = names  # type: ignore[attr-defined]
        function.__creates__ = create  # type: ignore[attr-defined]
        return function

    return mark


def _drop(stream: Any) -> None:
    """Cut the connection of a call, as a failing network would."""
    stream._stream.connection._transport.abort()


@dataclass(eq=False, kw_only=True)
class Dispatcher:
    """All handlers of the server, ready for grpclib.

    Attributes:
        authorise: Called with the service's name and the call's metadata before anything of the
            request is read. Returns the only task that the call may be about, or None for any;
            raises GRPCError when the call is not allowed.
        before: Called with the RPC's name before each handler; injects a fault, or returns a fault
            that cuts the connection later.
        active: A context for the time of each call.
        problem: Returns what to answer to an error that lies in this machine, a full disk.
    """

    authorise: Callable[[str, Mapping[str, Any]], str | None]
    before: Callable[[str], Awaitable[Fault | None]]
    active: Callable[[], AbstractContextManager[None]]
    problem: Callable[[Exception], str | None]
    _answers: Answers[Message] = field(default_factory=Answers)
    _handlers: dict[str, tuple[Any, bool]] = field(default_factory=dict)

    def add(self, subject: object) -> None:
        """Register every method of an object that is marked with `rpc`."""
        for name in dir(type(subject)):
            function = getattr(type(subject), name)
            for rpc_name in getattr(function, "__rpcs__", ()):
                self._handlers[rpc_name] = (getattr(subject, name), function.__creates__)

    def __mapping__(self) -> dict[str, Handler]:
        """Map each path of both services to its handler, as grpclib requires."""
        mapping: dict[str, Handler] = {}
        for module in (api_pb2, task_command_router_pb2):
            for service in module.DESCRIPTOR.services_by_name.values():
                if service.full_name in (CONTROL_PLANE, COMMAND_ROUTER):
                    for method in service.methods:
                        path = f"/{service.full_name}/{method.name}"
                        mapping[path] = self._handler(service.full_name, method)
        return mapping

    def unknown(self, path: str) -> Handler:
        """Return the handler of an RPC that the installed modal wheel does not know."""
        service, _, name = path.strip("/").rpartition("/")

        async def refuse(stream: Any) -> None:
            self.authorise(service, stream.metadata)
            raise unimplemented(name[:100])

        return Handler(refuse, Cardinality.UNARY_UNARY, Empty, Empty)

    def _handler(self, service: str, method: Any) -> Handler:
        async def serve(stream: Any) -> None:
            # First: the body of a call without a token is neither read nor kept.
            task_id = self.authorise(service, stream.metadata)
            idempotency_key.set(str(stream.metadata.get("x-idempotency-key", "")))
            peer_port.set(stream.peer.addr()[1])
            client_version.set(str(stream.metadata.get("x-modal-client-version", "")))
            _warnings.set([])
            with self.active():
                try:
                    await self._call(method, stream, task_id)
                except (GRPCError, StreamTerminatedError, asyncio.TimeoutError):
                    raise
                except Exception as error:
                    raise self._failure(method.name, error) from None

        kind = (method.client_streaming, method.server_streaming)
        return Handler(
            serve,
            next(one for one in Cardinality if one.value == kind),
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
        )

    async def _call(self, method: Any, stream: Any, task_id: str | None) -> None:
        name, request = method.name, await stream.recv_message()
        if request is None:
            raise GRPCError(Status.CANCELLED, f"{name} came without a request")
        about = request.start if method.client_streaming else request
        if task_id is not None and task_id != getattr(about, "task_id", None):
            raise GRPCError(Status.UNAUTHENTICATED, "The token is that of another task")
        fault = await self.before(name)
        if fault is not None and fault.messages == 0 and not fault.perform:
            _drop(stream)
            return
        if name not in self._handlers:
            raise unimplemented(name)
        for text in fields.check(name, request):
            warn(text)
        function, creates = self._handlers[name]
        if method.client_streaming:
            await stream.send_message(await function(request, stream))
        elif method.server_streaming:
            await self._stream(stream, function(request), fault)
        else:
            call, key = partial(function, request), idempotency_key.get()
            answer = await (self._answers.once((name, key), call) if creates and key else call())
            if fault is not None:
                _drop(stream)
                return
            await stream.send_message(answer)
            if texts := _warnings.get():
                warnings = [(_WARNING_HEADER, quote(text)) for text in texts]
                await stream.send_trailing_metadata(metadata=warnings)

    def _failure(self, name: str, error: Exception) -> GRPCError:
        """Return what to answer to an error that is a fault of this server or machine."""
        if problem := self.problem(error):
            # `Queue.put` would take it for a full queue, and try without end (modal 1.6.4).
            is_put = name == "QueuePut"
            status = Status.FAILED_PRECONDITION if is_put else Status.RESOURCE_EXHAUSTED
            return GRPCError(status, problem)
        log.exception("%s failed", name)
        # The text of others may have a secret.
        text = f" ({error})" if isinstance(error, (OSError, sqlite3.Error)) else ""
        kind = type(error).__name__
        return GRPCError(Status.INTERNAL, f"{name} failed in the local Modal server: {kind}{text}")

    @staticmethod
    async def _stream(
        stream: Any, answers: AsyncGenerator[Message, None], fault: Fault | None
    ) -> None:
        sent = 0
        async with aclosing(answers):
            async for message in answers:
                await stream.send_message(message)
                sent += 1
                if fault is not None and sent >= fault.messages:
                    _drop(stream)
                    return
                # Give other streams a turn.
                await asyncio.sleep(0)
