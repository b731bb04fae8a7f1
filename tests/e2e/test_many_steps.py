"""Runs of many steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.exhaustive, pytest.mark.timeout(900)]


# ZenML itself remembers a hundred steps.
@pytest.mark.parametrize(
    ("pipeline", "count", "mode"),
    [
        ("fan_in", 500, "pipeline"),
        ("fan_in", 120, "per_step"),
        ("dynamic_fan_in", 200, "pipeline"),
        ("chain", 300, "pipeline"),
    ],
)
def test_a_step_takes_the_outputs_of_many(
    world: World, pipeline: str, count: int, mode: str
) -> None:
    spec = f"pipeline: many.{pipeline}\ntarget: local\nparameters: {{count: {count}}}\n"

    done = world.popen(spec, "--mode", mode).finish(900)

    assert done.exit_code == 0, done.stderr
    assert f"joined {count}, sum {sum(range(count))}" in done.stdout
    run = world.only_run()
    assert set(run.statuses.values()) == {"completed"}
    assert len(run.statuses) == count + 1
