"""End the sandboxes that wait for a step as soon as no step is to come that could use them."""

from __future__ import annotations

import asyncio

from tests.unit.driver import coordinator_bench
from tests.unit.driver.warm_bench import Boxes, play


def test_the_sandboxes_of_a_fan_end_while_the_join_runs() -> None:
    async def scene() -> None:
        boxes = Boxes()
        graph = {"a": [], "b": [], "c": [], "join": ["a", "b", "c"]}
        run = coordinator_bench.Bench(graph, boxes=boxes, keep_warm=3600).begin()
        while len(boxes.created) < 3:
            await asyncio.sleep(0.01)
        for box in boxes.created:
            await box.end_step()

        # One of them runs the join, which goes on.
        while sum(box.terminated for box in boxes.created) < 2:
            await asyncio.sleep(0.01)
        (joining,) = [box for box in boxes.created if not box.terminated]
        assert joining.step == "join"
        await joining.end_step()
        await run

    play(scene)
