"""A list of sandboxes that lags hides no sandbox from `stop`, `resume` and the driver."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_driver import LONG, driver_of
from tests.e2e.test_per_step import assert_all_over, boxes, waiting

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

LAG = 600.0
"""Seconds; longer than any test takes."""


def lag(world: World) -> None:
    (world.state / "faults.json").write_text(json.dumps({"lags": {"list": LAG}}))


def test_a_forced_stop_finds_sandboxes_by_their_names(world: World) -> None:
    command, _ = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    lag(world)

    stopped = world.modalrun("stop", "--force", world.only_run().id).finish()

    assert stopped.exit_code == 0, stopped.stderr
    assert_all_over(world)
    assert world.only_run().status == "stopped"
    assert command.finish().exit_code == 7


@pytest.mark.exhaustive
def test_a_graceful_stop_reaches_the_driver_and_waits_for_the_step(world: World) -> None:
    command, gate = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    lag(world)
    stopping = world.modalrun("stop", world.only_run().id)
    stopping.stderr.wait_for("waiting for the running steps to finish: wait", LONG)
    gate.open()
    assert stopping.finish().exit_code == 0
    assert command.finish().exit_code == 7
    assert [step.status for step in world.only_run().steps] == ["completed"]
    assert_all_over(world)


@pytest.mark.exhaustive
def test_another_driver_adopts_a_step_that_the_list_does_not_show(world: World) -> None:
    command, gate = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    lag(world)

    os.kill(driver_of(world), signal.SIGKILL)

    command.stderr.wait_for("This driver takes over; running step sandboxes: 1.", LONG)
    gate.open()
    done = command.finish(LONG)
    assert done.exit_code == 0, done.stderr
    assert [len(boxes(world, step)) for step in ("wait", "afterwards")] == [1, 1]
    assert_all_over(world)


@pytest.mark.exhaustive
def test_a_resumed_run_adopts_a_step_that_the_list_does_not_show(world: World) -> None:
    command, gate = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    lag(world)
    (driver,) = (b for b in world.sandboxes() if b.tags["modalrun-role"] == "run")
    assert world.modalrun("local", "kill", driver.id).finish().exit_code == 0
    assert command.finish().exit_code == 7
    resume = [sys.executable, "-m", "modalrun", "resume", world.only_run().id]
    resumed = world.start(resume, cwd=world.project)
    resumed.stderr.wait_for("running step sandboxes: 1.", LONG)
    gate.open()
    done = resumed.finish(LONG)
    assert done.exit_code == 0, done.stderr
    assert len(boxes(world, "wait")) == 1
    assert_all_over(world)


@pytest.mark.exhaustive
def test_a_driver_that_ends_terminates_the_steps_that_the_list_does_not_show(
    world: World,
) -> None:
    command, _ = waiting(world, "timeout: 20")
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    lag(world)
    done = command.finish(LONG)
    assert done.exit_code == 6, done.stderr
    assert_all_over(world)
