"""What steps wait for, as a driver keeps it."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from modalrun.driver.graph.capacity_waits import CapacityWaits
from modalrun.run.capacity_wait import CapacityWait
from tests.unit.driver.coordinator_bench import AsyncRecorder, play


def wait(gpu: str, seconds: float, following: str | None = None) -> CapacityWait:
    return CapacityWait(gpu, following, time.time() - seconds)


def test_the_present_state_is_stored() -> None:
    async def scene() -> None:
        records = AsyncRecorder()
        waits = CapacityWaits(cast("Any", records))
        waits.tell("a", wait("H100", 1, "L4"))
        waits.tell("b", wait("T4", 1))
        await asyncio.sleep(0.01)
        waits.tell("a", None)
        await asyncio.sleep(0)
        waits.tell("b", None)
        await asyncio.sleep(0.01)
        told = records.recorder.waits
        assert told[0] == {"a": "waiting for H100, next: L4", "b": "waiting for T4"}
        assert told[-1] == {}

    play(scene)


def test_the_longest_waits_are_named() -> None:
    async def scene() -> None:
        waits = CapacityWaits(cast("Any", AsyncRecorder()))
        assert waits.summary() == ""
        for step, told in (("a", wait("H100", 40)), ("b", wait("H100", 9)), ("a", wait("L4", 20))):
            waits.tell(step, told)
        waits.tell("a", None)
        assert waits.summary() == "`a` waited 40 s for H100, `a` waited 20 s for L4."
        waits.tell("b", None)
        waits.tell("c", wait("T4", 2))
        waits.tell("c", None)
        assert waits.summary().endswith("`b` waited 9 s for H100.")

    play(scene)
