"""The driver of a `per_step` run may die, and Modal may not answer: the run goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_per_step import assert_all_over, boxes, per_step, terminate, waiting

if TYPE_CHECKING:
    from tests.conftest import Result, World

pytestmark = pytest.mark.e2e

LONG = 300


def driver_of(world: World, *, other_than: int = 0) -> int:
    """The driver's process, once it has begun to create sandboxes."""
    pattern = re.compile(r"-m modalrun\.driver\.walker")

    def find() -> int | None:
        found = (pid for pid, command in world.processes().items() if pattern.search(command))
        return next((pid for pid in found if pid != other_than), None)

    return world.wait_until(find, "the driver runs") or 0


def resume(world: World, run_id: str, *arguments: str) -> Result:
    command = [sys.executable, "-m", "modalrun", "resume", run_id, *arguments]
    return world.start(command).finish(LONG)


def test_a_driver_that_is_killed_and_a_run_sandbox_that_is_gone(world: World) -> None:
    command, gate = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    first = driver_of(world)

    os.kill(first, signal.SIGKILL)

    command.stderr.wait_for("Taking over: 1 step sandboxes are running.", LONG)
    run_id = world.only_run().id
    running = resume(world, run_id)
    assert running.exit_code == 0, running.stderr
    assert "driver is running" in running.stderr

    (driver,) = (b for b in world.sandboxes() if b.tags["modalrun-role"] == "run")
    terminate(world, driver.id)

    done = command.finish(LONG)
    assert done.exit_code == 7, done.stderr
    assert f"modalrun resume {run_id}" in done.stderr
    assert world.only_run().statuses == {"wait": "running"}

    changed = world.project / "another.py"
    changed.write_text("")
    refused = resume(world, run_id)
    assert refused.exit_code == 2, refused.stderr
    assert "has changed" in refused.stderr
    changed.unlink()

    gate.open()
    resumed = resume(world, run_id)
    assert resumed.exit_code == 0, resumed.stderr
    run = world.only_run()
    assert [(s.name, s.status, s.version) for s in run.steps] == [
        ("wait", "completed", 1),
        ("afterwards", "completed", 1),
    ]
    assert run.status == "completed"
    assert [len(boxes(world, step)) for step in ("wait", "afterwards")] == [1, 1]
    assert_all_over(world)

    over = resume(world, run_id)
    assert over.exit_code == 0
    assert "is over" in over.stderr


def test_modal_that_does_not_answer(world: World) -> None:
    world.server()
    rules = [
        # The SDK tries again with the key of the same call; in the end its name tells.
        {"rpc": "SandboxCreateV2", "action": "lose_answer", "skip": 1, "times": 4},
        {
            "rpc": "SandboxCreateV2",
            "action": "error",
            "status": "RESOURCE_EXHAUSTED",
            # The first call creates the run sandbox.
            "skip": 1,
            "times": 2,
        },
        {"rpc": "SandboxWaitV2", "action": "error", "times": 30},
        {"rpc": "SandboxWaitV2", "action": "disconnect", "times": 5},
    ]
    (world.state / "faults.json").write_text(json.dumps(rules))
    command = world.popen(per_step("diamond.diamond", count=3))

    done = command.finish(LONG)

    assert done.exit_code == 0, done.stderr
    run = world.only_run()
    assert run.status == "completed"
    assert [len(boxes(world, step)) for step in ("load", "left", "right", "join")] == [1, 1, 1, 1]
    assert_all_over(world)


def test_a_graceful_stop(world: World) -> None:
    command, gate = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    run_id = world.only_run().id
    stop = world.start([sys.executable, "-m", "modalrun", "stop", run_id])
    command.stderr.wait_for("Nothing more is started", LONG)

    gate.open()

    assert stop.finish(LONG).exit_code == 0
    done = command.finish(LONG)
    assert done.exit_code == 7, done.stderr
    run = world.only_run()
    assert (run.status, run.statuses) == ("stopped", {"wait": "completed"})
    assert_all_over(world)
