"""Sandboxes that are created before their step's turn."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_per_step import assert_all_over, boxes, per_step, terminate

if TYPE_CHECKING:
    from tests.world import Command, Gate, World

pytestmark = pytest.mark.e2e

LONG = 300


def begin(world: World, number: int) -> tuple[Command, Gate]:
    """Start a run of two steps, the first of which waits at a gate."""
    gate = world.gate(f"gate-{number}")
    return world.popen(per_step("waiting.waiting", "prewarm: cpu", gate=str(gate))), gate


def of_run(world: World, number: int, step: str) -> list[object]:
    runs = world.runs()
    if len(runs) <= number:
        return []
    return [b for b in boxes(world, step) if b.tags["modalrun-run"] == runs[number].id]


@pytest.mark.exhaustive
def test_a_sandbox_waits_for_its_step(world: World) -> None:
    # Nobody knows yet how long a step takes.
    command, gate = begin(world, 0)
    gate.open()
    first = command.finish(LONG)
    assert first.exit_code == 0, first.stderr
    assert not [b.id for b in boxes(world) if "modalrun-early" in b.tags]
    assert "created early" not in first.stderr

    command, gate = begin(world, 1)
    (early,) = world.wait_until(lambda: of_run(world, 1, "afterwards"), "one waits")
    gate.open()
    used = command.finish(LONG)
    assert used.exit_code == 0, used.stderr
    assert "s in sandboxes that were created early" in used.stderr
    assert [b.id for b in of_run(world, 1, "afterwards")] == [early.id]
    assert "modalrun-early" in early.tags
    assert world.runs()[1].statuses == {"wait": "completed", "afterwards": "completed"}

    assert_all_over(world)


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_a_sandbox_that_waits_in_vain(world: World) -> None:
    command, gate = begin(world, 0)
    gate.open()
    first = command.finish(LONG)
    assert first.exit_code == 0, first.stderr

    command, gate = begin(world, 1)
    (early,) = world.wait_until(lambda: of_run(world, 1, "afterwards"), "one waits")
    terminate(world, early.id)
    gate.open()
    another = command.finish(LONG)
    assert another.exit_code == 0, another.stderr
    assert len(of_run(world, 1, "afterwards")) == 2
    assert world.runs()[1].statuses == {"wait": "completed", "afterwards": "completed"}
    assert "retry" not in another.stderr

    command, gate = begin(world, 2)
    world.wait_until(lambda: of_run(world, 2, "afterwards"), "one waits")
    stop = world.start([sys.executable, "-m", "modalrun", "stop", world.runs()[2].id])
    world.wait_until(
        lambda: all(b.finished_at for b in of_run(world, 2, "afterwards")), "it waits no more"
    )
    gate.open()
    assert stop.finish(LONG).exit_code == 0
    stopped = command.finish(LONG)
    assert stopped.exit_code == 7, stopped.stderr
    assert world.runs()[2].statuses == {"wait": "completed"}
    assert_all_over(world)
