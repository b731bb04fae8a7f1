"""Streams of an SDK whose private parts have moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import modal

from modalrun.modal_api import sdk_internals
from modalrun.modal_api.sdk_internals import StreamPosition
from modalrun.run.sandbox_exit import read_exit


async def _lines() -> AsyncIterator[str]:
    for text in ("one\n", "€\n", "three\n"):
        yield text


def _read(sandbox: Any, position: StreamPosition) -> bytes:
    async def read() -> bytes:
        chunks = [chunk async for chunk in sdk_internals.read(sandbox, "stdout", position)]
        assert all(isinstance(chunk, bytes) for chunk in chunks)
        return b"".join(chunk for chunk in chunks if isinstance(chunk, bytes))

    return asyncio.run(read())


def test_an_unknown_backend_is_read_line_by_line() -> None:
    sandbox = SimpleNamespace(_impl=object(), stdout=_lines())
    position = StreamPosition()
    assert _read(sandbox, position) == "one\n€\nthree\n".encode()
    assert position.ended and position.offset == 14


def test_lines_that_were_read_before_are_left_out() -> None:
    # In the middle of a character that takes three bytes.
    position = StreamPosition(offset=5)
    assert _read(SimpleNamespace(stdout=_lines()), position) == "€".encode()[1:] + b"\nthree\n"
    assert position.ended and position.offset == 14


def test_the_end_of_a_sandbox_that_keeps_its_result_elsewhere_is_its_exit_code() -> None:
    sandbox: Any = SimpleNamespace(returncode=3)
    assert sdk_internals.exit_of(sandbox) == read_exit(3)
    sandbox.returncode = None
    assert sdk_internals.exit_of(sandbox) is None


def test_whether_a_sandbox_has_a_place() -> None:
    async def task_id() -> str:
        return "ta-1"

    async def none_yet() -> str:
        raise modal.exception.ExecutionError("Sandbox task_id is not available yet.")

    def sandbox(task_id: Any) -> modal.Sandbox:
        of = SimpleNamespace(_impl=SimpleNamespace(resolve_task_id_for_logs=task_id))
        return cast("modal.Sandbox", of)

    assert sdk_internals.has_place(sandbox(task_id))
    assert not sdk_internals.has_place(sandbox(none_yet))
    assert sdk_internals.has_place(cast("modal.Sandbox", SimpleNamespace(_impl=object())))
