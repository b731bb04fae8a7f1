"""Coordinate runs that create sandboxes before the turn of their steps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.driver.coordinator_bench import DONE, FAILED, KILLED, Bench, Box, play, step_events

PREWARM: dict[str, Any] = {"prewarm": "cpu"}


async def with_one_that_waits(bench: Bench) -> tuple[asyncio.Task[None], Box, Box]:
    """Start a run in which step b's sandbox waits while step a runs."""
    run = bench.begin()
    first = await bench.boxes.wait("sb-a-1")
    bench.coordinator.expect({"a": 0.0})
    early = await bench.boxes.wait("sb-b-1")
    assert early.early
    return run, first, early


def test_an_early_sandbox_that_ends_before_its_turn_is_replaced() -> None:
    async def scene() -> None:
        bench = Bench({"a": [], "b": ["a"]}, **PREWARM)
        run, first, early = await with_one_that_waits(bench)
        reading = asyncio.Event()

        async def never(_: Box) -> None:
            # Its worker is gone: whoever writes to it asks again and again.
            reading.set()
            await asyncio.Event().wait()

        early.reads = never
        first.end(DONE)
        await reading.wait()
        early.end(KILLED)
        (await bench.boxes.wait("sb-b-2")).end(DONE)
        await run
        assert bench.coordinator.succeeded

    play(scene)


def test_an_early_sandbox_that_ends_right_after_its_turn_was_used(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        bench = Bench({"a": [], "b": ["a"]}, **PREWARM)
        run, first, early = await with_one_that_waits(bench)

        async def slow_answer(box: Box) -> None:
            # It has read its go, but that is not known yet.
            box.end(FAILED)
            await asyncio.sleep(0.05)

        early.reads = slow_answer
        first.end(DONE)
        await run
        assert bench.coordinator.failed == ["b"]
        assert len(bench.boxes.requested) == 2

    play(scene)
    assert step_events(capsys.readouterr().out)[-1] == ("b", "failed")


def test_an_early_sandbox_in_use_is_not_discarded() -> None:
    async def scene() -> None:
        bench = Bench({"a": [], "b": ["a"]}, **PREWARM)
        run, first, early = await with_one_that_waits(bench)

        async def meanwhile(_: Box) -> None:
            bench.coordinator._context.ahead.discard_all()
            await asyncio.sleep(0)

        early.reads = meanwhile
        first.end(DONE)
        await asyncio.sleep(0.05)
        assert not early.terminated
        early.end(DONE)
        await run
        assert bench.coordinator.succeeded

    play(scene)
