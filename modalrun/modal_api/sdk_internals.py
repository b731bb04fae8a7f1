"""Reach the parts of the Modal SDK beneath its public sandbox.

Read from modal 1.6.4. Where a later version has moved a part, `backend` and `result` return None,
and their callers do without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal


def sdk_loop() -> asyncio.AbstractEventLoop:
    """The event loop that all of the SDK's objects belong to; it runs in a thread of its own."""
    from modal._utils.async_utils import synchronizer

    return synchronizer._get_loop(start=True)


def inner(wrapped: object) -> Any:
    """The SDK's own object behind one of its public ones, for use in its event loop."""
    from modal._utils.async_utils import synchronizer

    translate: Callable[[object], Any] = synchronizer._translate_in
    return translate(wrapped)


async def sandbox_from_id(sandbox: str, client: Any) -> Any:
    """The inner sandbox of an id; call this in the SDK's event loop.

    Args:
        sandbox: Modal's id.
        client: The inner client.
    """
    from modal.sandbox._sandbox import _Sandbox

    return await _Sandbox.from_id(sandbox, client=client)


def backend(sandbox: Any) -> Literal[1, 2] | None:
    """Which of Modal's two sandbox backends an inner sandbox is on.

    None where this version of the SDK doesn't say so, or has not got what `modal_api.raw` reads
    the streams of that backend with.
    """
    try:
        from modal import io_streams
        from modal.sandbox._task_command_router_client import TaskCommandRouterClient

        if _is_v2(sandbox):
            assert callable(TaskCommandRouterClient.sandbox_stdio_read)
            return 2
        assert callable(io_streams._sandbox_logs_iterator)
        return 1
    except (ImportError, AttributeError):
        return None


def _is_v2(sandbox: Any) -> bool:
    from modal.sandbox import _common, _impl_v1, _impl_v2

    assert callable(_common.command_router)
    if isinstance(sandbox._impl, _impl_v2.SandboxImplV2):
        return True
    if isinstance(sandbox._impl, _impl_v1.SandboxImplV1):
        return False
    raise AttributeError("neither of the backends that are known here")


async def command_router(sandbox: Any) -> tuple[str, Any]:
    """The task of an inner sandbox on the V2 backend, and the SDK's client of its worker."""
    from modal.sandbox import _common

    return await _common.command_router(sandbox._impl)


def result(sandbox: Any) -> Any:
    """The SDK's `GenericResult` of a public sandbox that has ended; None where it has none."""
    try:
        return inner(sandbox)._impl.result
    except (ImportError, AttributeError):
        return None
