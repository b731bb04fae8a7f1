"""The driver of a `per_step` run may die, and Modal may not answer: the run continues."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from modalrun.run import events
from modalrun.run.events import MARK, StepEvent
from tests.e2e.test_per_step import assert_all_over, boxes, per_step, terminate, waiting
from tests.world import FINISHED

if TYPE_CHECKING:
    from tests.world import Result, World

pytestmark = pytest.mark.e2e

LONG = 300


def driver_of(world: World, *, other_than: int = 0) -> int:
    """The driver's process, once it has begun to create sandboxes."""
    pattern = re.compile(r"-m modalrun\.driver\.per_step")

    def find() -> int | None:
        found = (pid for pid, command in world.processes().items() if pattern.search(command))
        return next((pid for pid in found if pid != other_than), None)

    return world.wait_until(find, "the driver runs") or 0


def resume(world: World, run_id: str, *arguments: str) -> Result:
    command = [sys.executable, "-m", "modalrun", "resume", run_id, *arguments]
    return world.start(command, cwd=world.project).finish(LONG)


def test_a_driver_that_is_killed_and_a_run_sandbox_that_is_gone(world: World) -> None:
    command, gate = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    first = driver_of(world)

    os.kill(first, signal.SIGKILL)

    command.stderr.wait_for("This driver takes over; running step sandboxes: 1.", LONG)
    run_id = world.only_run().id
    running = resume(world, run_id)
    assert running.exit_code == 0, running.stderr
    assert "is running. There is nothing to resume." in running.stderr

    (driver,) = (b for b in world.sandboxes() if b.tags["modalrun-role"] == "run")
    killed = world.modalrun("local", "kill", driver.id).finish()
    assert killed.exit_code == 0, killed.stderr

    done = command.finish(LONG)
    assert done.exit_code == 7, done.stderr
    assert f"modalrun resume {run_id}" in done.stderr
    assert world.only_run().statuses == {"wait": "running"}

    changed = world.project / "waiting.py"
    before = changed.read_bytes()
    changed.write_text("")
    # A log of one's own, say, is no reason to refuse.
    (world.project / "resume.out").write_text("")
    refused = resume(world, run_id)
    assert refused.exit_code == 2, refused.stderr
    said = " ".join(refused.stderr.split())
    assert "has changed since the run was submitted: waiting.py (changed). The" in said
    changed.write_bytes(before)

    # The sandbox that was terminated has the name of the one that is not created.
    fault = {"rpc": "SandboxCreateV2", "action": "error", "times": 4}
    (world.state / "faults.json").write_text(json.dumps([fault]))
    lost = resume(world, run_id)
    assert lost.exit_code == 8, lost.stderr

    fault["action"] = "lose_answer"
    (world.state / "faults.json").write_text(json.dumps([fault]))
    gate.open()
    world.wait_until(lambda: boxes(world, "wait")[0].finished_at, "the step is done")
    resumed = resume(world, run_id)
    assert resumed.exit_code == 0, resumed.stderr
    assert_the_rest_is_all_that_is_new(world, resumed, run_id)
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
    assert "has ended: completed" in over.stderr


@pytest.mark.exhaustive
def test_a_step_that_was_lost_with_its_driver_says_that_it_is_started_again(world: World) -> None:
    command, gate = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    run_id = world.only_run().id
    for box in world.sandboxes():
        terminate(world, box.id)
    assert command.finish(LONG).exit_code == 7

    resuming = world.start([sys.executable, "-m", "modalrun", "resume", run_id], cwd=world.project)

    said = "Its sandbox was lost. It is started again, without using up a retry."
    resuming.stderr.wait_for(said)
    gate.open()
    done = resuming.finish(LONG)
    assert done.exit_code == 0, done.stderr
    logs = world.modalrun("logs", run_id, "--step", "wait").finish(LONG).stdout
    first, _, second = logs.partition(said)
    assert "waiting in" in first
    assert "the gate is open" in second


def assert_the_rest_is_all_that_is_new(world: World, resumed: Result, run_id: str) -> None:
    said = " ".join(resumed.stderr.split())
    assert "which the run does not get: resume.out" in said
    assert "before the resume" in said
    assert "the gate is open" not in resumed.stdout
    # The new driver tells of the step that was done before.
    new = next(b for b in reversed(world.sandboxes()) if b.tags["modalrun-role"] == "run")
    journal = (world.state / "logs" / new.id / "stdout").read_text()
    told = [events.read(line) for line in journal.split("\n") if line.startswith(MARK)]
    first = told[0]
    assert isinstance(first, StepEvent)
    assert (first.step, first.state) == ("wait", "completed")
    assert first.sandbox == boxes(world, "wait")[0].id
    assert first.began
    assert first.began < first.at
    logs = world.start([sys.executable, "-m", "modalrun", "logs", run_id]).finish(LONG)
    assert "the gate is open" in logs.stdout, logs.stderr


@pytest.mark.exhaustive
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
        # The SDK itself asks again after some errors, and not after others.
        {"rpc": "SandboxWaitV2", "action": "error", "status": "INTERNAL", "times": 6},
        {"rpc": "SandboxWaitV2", "action": "error", "times": 8},
        {"rpc": "SandboxWaitV2", "action": "disconnect", "times": 3},
    ]
    (world.state / "faults.json").write_text(json.dumps(rules))

    # Nobody follows it, so all that fails is asked by the driver.
    accepted = world.submit(per_step("diamond.diamond", count=3), "--async")

    assert accepted.exit_code == 0, accepted.stderr
    world.wait_until(lambda: world.only_run().status in FINISHED, "the run is over", LONG)
    run = world.only_run()
    ended = world.modalrun("status", run.id, "--exit-status").finish(LONG)
    assert (run.status, ended.exit_code) == ("completed", 0), ended.stderr
    assert any(b"asking again" in path.read_bytes() for path in world.log_files())
    assert [len(boxes(world, step)) for step in ("load", "left", "right", "join")] == [1, 1, 1, 1]
    # ZenML has the end of the run before its driver has seen the end of the last sandbox.
    world.wait_until(lambda: all(box.finished_at for box in world.sandboxes()), "all has ended")


EVENTS_OF_A_DIAMOND = 12
"""Three of each of its four steps: starting, running, completed."""


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
def test_a_driver_that_is_killed_after_each_event(world: World) -> None:
    world.server()
    for point in range(1, EVENTS_OF_A_DIAMOND + 1):
        before = len(world.sandboxes())
        spec = per_step("diamond.diamond", count=3) + "enable_cache: false\n"
        command = world.popen(spec)
        world.wait_until(lambda before=before: world.sandboxes()[before:], "it has a sandbox", LONG)
        driver = world.sandboxes()[before]
        pid = driver_of(world)
        journal = world.state / "logs" / driver.id / "stdout"
        world.wait_until(
            lambda journal=journal, point=point: journal.read_bytes().count(MARK.encode()) >= point,
            f"event {point}",
        )

        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

        done = command.finish(LONG)
        assert done.exit_code == 0, (point, done.stderr)
        run = world.runs()[-1]
        assert run.status == "completed", point
        assert sorted((s.name, s.status, s.version) for s in run.steps) == [
            (name, "completed", 1) for name in ("join", "left", "load", "right")
        ], point
        used = [b.tags["modalrun-step"] for b in boxes(world) if b.tags["modalrun-run"] == run.id]
        assert sorted(used) == ["join", "left", "load", "right"], point
        assert_all_over(world)


@pytest.mark.parametrize(
    ("status", "action"),
    [
        pytest.param("UNAVAILABLE", "error", marks=pytest.mark.exhaustive),
        pytest.param("INTERNAL", "error", marks=pytest.mark.exhaustive),
        pytest.param("UNAVAILABLE", "disconnect", marks=pytest.mark.exhaustive),
    ],
)
def test_polls_that_fail_for_half_a_minute(world: World, status: str, action: str) -> None:
    command, gate = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    rule = {"rpc": "SandboxWait*", "action": action, "status": status, "times": None}
    (world.state / "faults.json").write_text(json.dumps([rule]))
    # The poll that is on its way still succeeds.
    command.stderr.wait_for("asking again", LONG)
    began = time.monotonic()
    gate.open()
    # The end of the step is asked for all the time, in vain.
    world.wait_until(lambda: time.monotonic() - began > 30, "half a minute is over")
    assert world.only_run().statuses == {"wait": "completed"}
    assert boxes(world, "afterwards") == []

    (world.state / "faults.json").write_text("[]")

    done = command.finish(LONG)
    assert done.exit_code == 0, done.stderr
    assert world.only_run().statuses == {"wait": "completed", "afterwards": "completed"}
    assert [len(boxes(world, step)) for step in ("wait", "afterwards")] == [1, 1]
    assert_all_over(world)


@pytest.mark.exhaustive
@pytest.mark.parametrize("action", ["error", "hang"])
def test_a_poll_that_fails_once(world: World, action: str) -> None:
    command, gate = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    # INTERNAL is what the SDK doesn't try again itself.
    rule = {"rpc": "SandboxWait*", "action": action, "status": "INTERNAL", "times": 2}
    (world.state / "faults.json").write_text(json.dumps([rule]))
    log = world.state / "server.log"
    # One each: the driver asks for the step, the command for the driver.
    world.wait_until(lambda: log.read_text().count("fault: SandboxWait") == 2, "both have failed")
    gate.open()

    done = command.finish(LONG)

    assert done.exit_code == 0, done.stderr
    assert world.only_run().status == "completed"
    assert world.only_run().statuses == {"wait": "completed", "afterwards": "completed"}
    assert [len(boxes(world, step)) for step in ("wait", "afterwards")] == [1, 1]
    assert_all_over(world)


@pytest.mark.parametrize(
    "faults",
    [
        {"rules": [], "boot_delay": 60},
        pytest.param(
            # Modal is being asked: what it creates comes after all has been ended.
            {"rules": [{"rpc": "SandboxCreate*", "action": "delay", "seconds": 25}]},
            marks=pytest.mark.exhaustive,
        ),
    ],
    ids=["booting", "asked for"],
)
def test_a_stop_while_a_sandbox_is_starting(world: World, faults: dict[str, object]) -> None:
    command, gate = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    run = world.only_run()
    (driver,) = (b for b in world.sandboxes() if b.tags["modalrun-role"] == "run")
    journal = world.state / "logs" / driver.id / "stdout"
    (world.state / "faults.json").write_text(json.dumps(faults))
    gate.open()
    # The fourth is the first one of the second step: it is starting.
    world.wait_until(lambda: journal.read_bytes().count(MARK.encode()) >= 4, "it is starting")

    stop = world.start([sys.executable, "-m", "modalrun", "stop", "--force", run.id])

    assert stop.finish(LONG).exit_code == 0
    done = command.finish(LONG)
    assert done.exit_code == 7, done.stderr
    assert world.only_run().status == "stopped"
    assert world.only_run().statuses["wait"] == "completed"
    assert world.only_run().statuses.get("afterwards") in {None, "stopped"}
    world.wait_until(lambda: all(b.finished_at for b in world.sandboxes()), "all is over")


@pytest.mark.parametrize(
    "lost",
    [
        None,
        pytest.param("driver", marks=pytest.mark.exhaustive),
        pytest.param("step", marks=pytest.mark.exhaustive),
    ],
)
def test_a_graceful_stop(world: World, lost: str | None) -> None:
    command, gate = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    run_id = world.only_run().id
    stop = world.start([sys.executable, "-m", "modalrun", "stop", run_id])
    command.stderr.wait_for("Nothing more is started", LONG)
    if lost == "driver":
        # Whoever asked waits for the run's end and doesn't ask again.
        os.kill(driver_of(world), signal.SIGKILL)
        command.stderr.wait_for("This driver takes over; running step sandboxes: 1.", LONG)

    if lost == "step":
        terminate(world, boxes(world, "wait")[0].id)
    else:
        gate.open()

    assert stop.finish(LONG).exit_code == 0
    done = command.finish(LONG)
    assert done.exit_code == 7, done.stderr
    assert "failed" not in done.stderr
    run = world.only_run()
    statuses = {"wait": "stopped" if lost == "step" else "completed"}
    assert (run.status, run.statuses) == ("stopped", statuses)
    assert_all_over(world)


@pytest.mark.exhaustive
def test_a_step_whose_sandbox_comes_after_zenml_was_asked_to_stop(world: World) -> None:
    command, gate = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    run_id = world.only_run().id
    # The driver looks at ZenML meanwhile.
    (world.state / "faults.json").write_text(json.dumps({"boot_delay": 20}))
    gate.open()
    world.wait_until(lambda: boxes(world, "afterwards"), "the second step is starting")

    world.zenml(
        "from modalrun.zenml_api.records import updates\n"
        f"result = updates.mark_stopping({run_id!r}, 'x')"
    )

    done = command.finish(LONG)
    assert done.exit_code == 7, done.stderr
    run = world.only_run()
    assert (run.status, run.statuses) == ("stopped", {"wait": "completed"})
    assert "failed" not in done.stderr
    assert "started again" not in done.stderr
    assert len(boxes(world, "afterwards")) == 1
    assert_all_over(world)
