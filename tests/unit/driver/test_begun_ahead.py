"""Adopt the first steps, which the submission has begun beside the start of the driver."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from modalrun.run.sandbox_exit import ExitKind, read_exit
from modalrun.run.step_order import worker_of
from modalrun.run.tags import step_sandbox_name
from tests.unit.driver import coordinator_bench
from tests.unit.driver.warm_bench import Bench, Box, play, spec_of


def begun_ahead(bench: Bench) -> Box:
    """Let the submission have begun the step `a`."""
    spec = replace(spec_of("a"), name=step_sandbox_name("run", "a", 1))
    bench.boxes.ahead = box = Box(worker_of(spec, bench.plan))
    return box


def test_a_step_that_the_submission_has_begun_is_adopted_and_its_sandbox_serves_on() -> None:
    async def scene() -> None:
        bench = Bench(ahead=("a", "not created"))
        box = begun_ahead(bench)
        (adopted,) = await bench.pool.ahead()
        assert (adopted.id, adopted.step, adopted.attempt) == (box.id, "a", 1)
        await asyncio.sleep(0.01)
        await box.end_step()
        assert (await adopted.ended()).kind is ExitKind.COMPLETED
        second = await bench.get("b")
        assert (second.id, bench.boxes.created) == (box.id, [])

    play(scene)


def test_a_creation_that_the_submission_is_quicker_with_has_the_order_of_that() -> None:
    async def scene() -> None:
        bench = Bench(ahead=("a",))
        box = begun_ahead(bench)
        lease = await bench.get("a")
        await box.end_step()
        assert (await lease.ended()).kind is ExitKind.COMPLETED

    play(scene)


def test_a_sandbox_that_ends_without_a_report_of_its_step_is_lost() -> None:
    async def scene() -> None:
        bench = Bench(ahead=("a",))
        box = begun_ahead(bench)
        (adopted,) = await bench.pool.ahead()
        await box.die(read_exit(0))
        assert (await adopted.ended()).is_infrastructure

    play(scene)


def test_a_stop_before_the_driver_begins_lets_a_step_finish_that_was_begun() -> None:
    async def scene() -> None:
        bench = coordinator_bench.Bench({"a": [], "b": ["a"]})
        box = coordinator_bench.Box("a")
        bench.coordinator.stop("somebody asked for it")
        run = bench.begin(coordinator_bench.taken_over(box))
        await asyncio.sleep(0.01)
        assert not box.terminated
        box.end(coordinator_bench.DONE)
        await run
        assert bench.boxes.created == {}

    play(scene)
