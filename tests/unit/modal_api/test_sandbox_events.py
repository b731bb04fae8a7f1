"""Listen to the output of a sandbox whose stream ends before the sandbox does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from modalrun.modal_api.sandboxes import sandbox_events
from modalrun.modal_api.sdk_internals import StreamPosition


def test_streams_of_a_quiet_sandbox_are_read_again_without_growing_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged: list[str] = []
    quiet = iter(range(16))

    async def read(_: object, __: str, position: StreamPosition) -> AsyncIterator[bytes]:
        if next(quiet, None) is None:
            yield b"at last\n"
            position.ended = True

    monkeypatch.setattr(sandbox_events, "read", read)
    # Doubled each time, they would add up to more than a minute.
    monkeypatch.setattr(sandbox_events, "FIRST_PAUSE", 0.001)
    sandbox = SimpleNamespace(object_id="sb-1")

    asyncio.run(
        asyncio.wait_for(sandbox_events._listen(sandbox, lambda _: None, logged.append), 30)
    )

    assert next(quiet, None) is None
    assert logged == []
