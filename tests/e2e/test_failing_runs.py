"""ZenML calls a run failed with its first failed step, while its other steps go on."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_per_step import assert_all_over, boxes
from tests.world import FINISHED

if TYPE_CHECKING:
    from tests.commands import Command
    from tests.world import Gate, World

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

LONG = 300
GOES_ON = "A step has failed, so ZenML calls the run 'failed' already. Its other steps go on."
MODES = ["pipeline", pytest.param("per_step", marks=pytest.mark.exhaustive)]


def begun(world: World, mode: str, *arguments: str) -> tuple[Command, Gate, str]:
    """Submit a run, and wait until one step has failed and the other waits."""
    world.server()
    gate = world.gate()
    spec = f"pipeline: failing_beside.beside\ntarget: local\nparameters: {{gate: {gate}}}\n"
    command = world.popen(spec, "--mode", mode, *arguments)
    world.wait_until(
        lambda: (
            (runs := world.runs())
            and runs[0].statuses.get("fails") == "failed"
            and runs[0].statuses.get("waits") == "running"
        ),
        "one step has failed and the other waits",
        LONG,
    )
    return command, gate, world.only_run().id


@pytest.mark.parametrize("mode", MODES)
def test_the_run_goes_on_for_every_command(world: World, mode: str) -> None:
    submit, gate, run = begun(world, mode)

    status = world.modalrun("status", run, "--exit-status").finish()
    assert status.exit_code == 8, status.stdout + status.stderr
    assert GOES_ON in " ".join(status.stdout.split())
    assert re.search(r"^ *state +running$", status.stdout, re.M)
    assert re.search(r"^after +waiting", status.stdout, re.M)
    shown = json.loads(world.modalrun("status", run, "--output", "json").finish().stdout)
    assert (shown["state"], shown["over"], shown["exit_code"]) == ("running", False, None)
    assert shown["ended"] is None
    assert shown["zenml"]["status"] == "failed"
    running, failed = ["--state", "running"], ["--state", "failed"]
    for states, count in ((running, 1), (failed, 0), ([*running, *failed], 1), ([], 1)):
        listed = world.modalrun("list", *states, "--output", "json").finish()
        runs = json.loads(listed.stdout)["runs"]
        assert [(one["state"], one["finished"]) for one in runs] == [("running", False)] * count
    inside = world.modalrun("exec", run, "--step", "waits", "--", "echo", "inside").finish()
    assert (inside.exit_code, inside.stdout) == (0, "inside\n"), inside.stderr
    rerun = world.modalrun("rerun", run, "--plan").finish()
    assert rerun.exit_code == 2 and "is not over: it is 'running'" in rerun.stderr
    settled = world.modalrun("reconcile", run).finish()
    assert "the record is right" in settled.stdout + settled.stderr

    stop = world.modalrun("stop", run)
    stop.stderr.wait_for("waiting for the running steps to finish: waits", LONG)
    gate.open()
    stopped, done = stop.finish(LONG), submit.finish(LONG)
    assert (stopped.exit_code, done.exit_code) == (0, 1), stopped.stderr + done.stderr
    assert world.only_run().statuses == {"fails": "failed", "waits": "completed"}
    over = json.loads(world.modalrun("status", run, "--output", "json").finish().stdout)
    assert (over["state"], over["over"]) == ("failed", True)
    assert "fails" in over["zenml"]["reason"]
    assert over["ended"] == max(step["ended"] for step in over["steps"] if step["ended"])
    assert_all_over(world)


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", ["pipeline", "per_step"])
def test_it_is_stopped_by_force(world: World, mode: str) -> None:
    _, _, run = begun(world, mode, "--async")

    stopped = world.modalrun("stop", run, "--force").finish(LONG)

    assert stopped.exit_code == 0, stopped.stderr
    text = f"The run {run} is stopped. ZenML calls it 'failed', because a step had failed before."
    assert text in stopped.stderr.splitlines()
    found = world.only_run()
    assert found.statuses == {"fails": "failed", "waits": "stopped"}
    shown = json.loads(world.modalrun("status", run, "--output", "json").finish().stdout)
    assert (shown["state"], shown["over"]) == ("failed", True)
    assert shown["zenml"]["reason"] == "The run was stopped by force."
    assert_all_over(world)


def test_another_driver_takes_over(world: World) -> None:
    submit, gate, run = begun(world, "per_step")
    (driver,) = (box for box in world.sandboxes() if box.tags["modalrun-role"] == "run")

    killed = world.modalrun("local", "kill", driver.id).finish()

    assert killed.exit_code == 0, killed.stderr
    left = submit.finish(LONG)
    assert left.exit_code == 7 and f"modalrun resume {run}" in left.stderr, left.stderr
    lost = json.loads(world.modalrun("status", run, "--output", "json").finish().stdout)
    assert (lost["state"], lost["over"]) == ("lost", False)
    resumed = world.modalrun("resume", run, "--source-root", str(world.project))
    resumed.stderr.wait_for("another driver takes over", LONG)
    gate.open()
    assert resumed.finish(LONG).exit_code == 1
    found = world.only_run()
    assert found.statuses == {"fails": "failed", "waits": "completed", "after": "completed"}
    # It has not run again.
    assert len(boxes(world, "waits")) == 1
    assert found.status in FINISHED


@pytest.mark.exhaustive
def test_nobody_takes_over(world: World) -> None:
    submit, _, run = begun(world, "pipeline", "--async")
    assert submit.finish(LONG).exit_code == 0
    (sandbox,) = world.sandboxes()
    assert world.modalrun("local", "kill", sandbox.id).finish().exit_code == 0

    settled = world.modalrun("reconcile", run).finish()

    assert settled.exit_code == 0, settled.stderr
    assert world.only_run().statuses == {"fails": "failed", "waits": "failed"}
    shown = json.loads(world.modalrun("status", run, "--output", "json").finish().stdout)
    assert (shown["state"], shown["over"]) == ("failed", True)
