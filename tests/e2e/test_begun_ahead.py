"""With `keep_warm` the sandboxes of the first steps start beside that of their driver."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.test_keep_warm import LONG, WARM
from tests.e2e.test_per_step import assert_all_over, boxes, per_step

if TYPE_CHECKING:
    from tests.world import World

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.exhaustive,
    pytest.mark.skipif(sys.platform != "linux", reason="steps are forked on Linux"),
]

ALL = dict.fromkeys("abc", "completed")


def let(world: World, **faults: Any) -> None:
    """Script faults."""
    world.server()
    (world.state / "faults.json").write_text(json.dumps(faults))


def said(world: World) -> list[str]:
    """Which steps have run, over all sandboxes."""
    logs = [world.state / "logs" / box.id / "stdout" for box in boxes(world)]
    lines = [line for log in logs for line in log.read_text().splitlines()]
    return sorted(line.split()[2] for line in lines if line.startswith("it says "))


@pytest.mark.parametrize("limit", ["", ", max_parallelism: 2"])
def test_the_first_steps_start_beside_their_driver(world: World, limit: str) -> None:
    let(world, boot_delay=10)
    spec = per_step("fan.fan", WARM + limit, count=3, diary=world.root / "diary")
    done = world.popen(per_step("warm.saying", WARM) if not limit else spec).finish(LONG)

    assert done.exit_code == 0, done.stderr
    (driver,) = (box for box in world.sandboxes() if box.tags["modalrun-role"] == "run")
    first = boxes(world)[0]
    assert first.created_at < driver.started_at
    assert len(boxes(world)) == (2 if limit else 1)
    assert sum(int(box.tags["modalrun-served"]) for box in boxes(world)) == len(
        world.only_run().steps
    )
    assert_all_over(world)


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "error", "status": "INVALID_ARGUMENT"},
        {"action": "lose_answer"},
        # Longer than the submission waits; its driver is quicker.
        {"action": "delay", "seconds": 15},
    ],
    ids=["refused", "not answered", "late"],
)
def test_a_first_sandbox_that_the_submission_can_not_create(
    world: World, fault: dict[str, Any]
) -> None:
    let(world, rules=[{"rpc": "SandboxCreateV2", "skip": 1, **fault}])
    done = world.popen(per_step("warm.saying", WARM)).finish(LONG)

    assert done.exit_code == 0, done.stderr
    assert "a scripted fault: SandboxCreateV2: " in (world.state / "server.log").read_text()
    assert said(world) == ["a", "b", "c"]
    assert world.only_run().statuses == ALL
    assert_all_over(world)


def test_a_driver_that_never_comes(world: World) -> None:
    """Its run can be resumed, and no step runs twice."""
    let(world, sandboxes=[{"role": "run", "end": "evicted", "after": 0}])
    done = world.popen(per_step("warm.saying", WARM)).finish(LONG)
    assert done.exit_code == 7, done.stderr
    run = world.only_run()
    world.wait_until(lambda: world.only_run().statuses == {"a": "completed"}, "its step", LONG)

    let(world, rules=[])
    done = world.start([sys.executable, "-m", "modalrun", "resume", run.id], cwd=world.project)

    resumed = done.finish(LONG)
    assert resumed.exit_code == 0, resumed.stderr
    assert said(world) == ["a", "b", "c"]
    assert world.only_run().statuses == ALL
    assert_all_over(world)


@pytest.mark.parametrize("force", [False, True])
def test_a_stop_before_the_driver_has_come(world: World, force: bool) -> None:
    let(world, boot_delay=45)
    done = world.submit(per_step("warm.saying", WARM), "--async")
    assert done.exit_code == 0, done.stderr
    run_id = world.only_run().id

    stopped = world.modalrun("stop", run_id, *(["--force"] if force else [])).finish(LONG)

    assert stopped.exit_code == 0, stopped.stderr
    world.wait_until(lambda: all(box.finished_at for box in world.sandboxes()), "its end", LONG)
    assert world.only_run().status == "stopped"
    assert set(world.only_run().statuses) <= {"a"}
