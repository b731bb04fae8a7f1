"""Runs that nobody waits for, and what somebody can do to a run that goes."""

from __future__ import annotations

import json
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_endings import pids, waiting_spec

if TYPE_CHECKING:
    from tests.world import Command, World

pytestmark = pytest.mark.e2e

QUESTION = "s: stop the run"


def shown(command: Command) -> str:
    """What a terminal has shown, without its control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", command.stdout.text).replace("\r", "")


def settled(world: World, statuses: dict[str, str], status: str = "stopped") -> None:
    """The run is over, with these steps, and nothing of it runs."""
    run = world.only_run()
    assert (run.status, run.statuses) == (status, statuses)
    assert all(box.finished_at for box in world.sandboxes())


def test_a_run_that_nobody_waits_for_is_stopped_gracefully_from_elsewhere(world: World) -> None:
    gate = world.gate()
    done = world.submit(waiting_spec(gate), "--async")
    assert done.exit_code == 0, done.stderr
    run_id = done.stdout.strip()
    assert run_id == world.only_run().id, "the id alone is data"
    for command in ("status", "logs --follow", "stop"):
        assert f"modalrun {command} {run_id}" in done.stderr
    world.wait_until(lambda: world.only_run().statuses, "the first step runs")

    stop = world.modalrun("stop", run_id)

    stop.stderr.wait_for("waiting for the running steps to finish: wait")
    assert (stop.process.poll(), world.sandboxes()[0].finished_at) == (None, 0)
    asked = world.modalrun("status", run_id).finish()
    assert "It was asked to stop; running steps may finish: wait." in asked.stdout
    gate.open()
    stopped = stop.finish()
    assert stopped.exit_code == 0, stopped.stderr
    assert f"The run {run_id} is stopped." in stopped.stderr
    settled(world, {"wait": "completed"})
    assert world.sandboxes()[0].exitcode == 143

    again = world.modalrun("stop", run_id, "--force").finish()
    assert again.exit_code == 0, again.stderr
    assert "has ended already: stopped" in again.stderr


@pytest.mark.exhaustive
def test_a_sandbox_that_is_starting_is_ended_too(world: World) -> None:
    world.server()
    (world.state / "faults.json").write_text(json.dumps({"boot_delay": 60}))
    done = world.submit(waiting_spec(world.gate()), "--async")
    assert done.exit_code == 0, done.stderr

    stopped = world.modalrun("stop", "--force", done.stdout.strip()).finish()

    assert stopped.exit_code == 0, stopped.stderr
    settled(world, {})


@pytest.mark.parametrize(
    "mode", ["pipeline", pytest.param("per_step", marks=pytest.mark.exhaustive)]
)
def test_a_run_is_stopped_from_elsewhere_while_its_sandbox_is_long_in_coming(
    world: World, mode: str
) -> None:
    world.server()
    # As a GPU that Modal has none of: the answer to the creation is long in coming.
    fault = {"rpc": "SandboxCreate*", "action": "hang", "times": None}
    (world.state / "faults.json").write_text(json.dumps([fault]))
    settings = f"settings: {{orchestrator: {{mode: {mode}}}}}"
    submitting = world.popen(waiting_spec(world.gate(), settings))
    submitting.stderr.wait_for("  id  ")

    stopped = world.modalrun("stop", world.only_run().id).finish()

    assert stopped.exit_code == 0, stopped.stderr
    assert f"The run {world.only_run().id} is stopped." in stopped.stderr
    done = submitting.finish()
    assert done.exit_code == 7, done.stderr
    assert "was stopped by somebody while it was being submitted" in done.stderr
    settled(world, {})


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", ["pipeline", "per_step"])
def test_a_sandbox_that_comes_after_its_run_was_stopped_ends_by_itself(
    world: World, mode: str
) -> None:
    world.server()
    (world.state / "faults.json").write_text(json.dumps({"boot_delay": 45}))
    settings = f"settings: {{orchestrator: {{mode: {mode}}}}}"
    done = world.submit(waiting_spec(world.gate(), settings), "--async")
    assert done.exit_code == 0, done.stderr
    run_id = world.only_run().id

    # ZenML alone is told, as where the process that submitted the run is gone.
    mark = (
        "from modalrun.zenml_api.records import updates\n"
        f"result = updates.mark_stopping({run_id!r}, 'x')"
    )
    world.zenml(mark)
    assert world.only_run().status == "stopped"

    world.wait_until(lambda: all(box.finished_at for box in world.sandboxes()), "its end")
    settled(world, {})


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.exhaustive),
    ],
)
def test_without_a_terminal_a_signal_stops_the_run(
    world: World, number: int, exit_code: int
) -> None:
    command = world.popen(waiting_spec(world.gate()))
    pids(world, command)

    command.signal(number)
    began = time.monotonic()
    done = command.finish()

    assert done.exit_code == exit_code, done.stderr
    assert time.monotonic() - began < 10
    settled(world, {"wait": "stopped"})
    assert re.search(r"^wait +stopped", done.stderr, re.M), done.stderr
    assert "Run stopped because of the interrupt." in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_on_a_terminal_asks(world: World) -> None:
    gate = world.gate()
    command = world.popen(waiting_spec(gate), terminal=True)
    command.stdout.wait_for("waiting in")

    command.signal(signal.SIGINT)
    world.wait_until(lambda: QUESTION in shown(command), "the question")
    command.type("xg")
    gate.open()
    command.stdout.wait_for("Run completed.")
    assert command.finish().exit_code == 0
    settled(world, {"wait": "completed", "afterwards": "completed"}, "completed")


def test_leaving_does_not_end_the_run(world: World) -> None:
    gate = world.gate()
    command = world.popen(waiting_spec(gate), terminal=True)
    command.stdout.wait_for("waiting in")

    command.signal(signal.SIGINT)
    world.wait_until(lambda: QUESTION in shown(command), "the question")
    command.signal(signal.SIGINT)

    done = command.finish(10)
    assert done.exit_code == 130
    run = world.only_run()
    assert f"The run {run.id} continues" in shown(command)
    assert f"modalrun stop {run.id}" in shown(command)
    assert (world.sandboxes()[0].finished_at, run.statuses) == (0, {"wait": "running"})
    gate.open()
    world.wait_until(lambda: world.only_run().status == "completed", "the run completed")


@pytest.mark.exhaustive
@pytest.mark.parametrize("key", ["s", "d"])
def test_answers_on_a_terminal(world: World, key: str) -> None:
    command = world.popen(waiting_spec(world.gate()), terminal=True)
    command.stdout.wait_for("waiting in")
    command.signal(signal.SIGINT)
    world.wait_until(lambda: QUESTION in shown(command), "the question")
    command.type(key)

    assert command.finish(10).exit_code == 130
    if key == "d":
        assert "continues" in shown(command)
        forced = world.modalrun("stop", "--force", world.only_run().id).finish()
        assert forced.exit_code == 0, forced.stderr
    settled(world, {"wait": "stopped"})


@pytest.mark.exhaustive
def test_when_nobody_reads_the_output_any_more_the_run_goes_on(world: World) -> None:
    script = f"{world.spec(waiting_spec(world.gate()))}"
    # A reader that ends before the first line: later, it may be the last one for long.
    pipe = f"set -o pipefail; modalrun submit {script} --on-interrupt stop | true"
    done = world.start(["bash", "-c", pipe]).finish()
    assert done.exit_code == 141, done.stderr
    assert "continues" in done.stderr and "Traceback" not in done.stderr
    assert world.modalrun("stop", "--force", world.only_run().id).finish().exit_code == 0


PER_STEP = "settings: {orchestrator: {mode: per_step}}"


@pytest.mark.exhaustive
def test_steps_whose_driver_was_killed_live_on_and_can_be_stopped(world: World) -> None:
    gate = world.gate()
    command = world.popen(waiting_spec(gate, PER_STEP))
    command.stdout.wait_for("wait | waiting in")
    driver, step = world.sandboxes()

    killed = world.modal("container", "stop", "--yes", driver.task_id)

    assert killed.exit_code == 0, killed.stderr
    done = command.finish()
    run = world.only_run()
    assert done.exit_code == 7, done.stderr
    assert "(step sandboxes that still run: 1)" in done.stderr
    assert f"modalrun resume {run.id}" in done.stderr
    assert (run.status, run.statuses) == ("running", {"wait": "running"})

    stop = world.modalrun("stop", run.id)
    world.wait_until(lambda: "no driver" in stop.stderr.text, "it is said what is waited for")
    gate.open()
    assert stop.finish().exit_code == 0, stop.stderr.text
    settled(world, {"wait": "completed"})
    assert step.id == world.sandboxes()[1].id, "no other sandbox was created"


def test_by_force_steps_end_before_their_driver_can_start_them_again(world: World) -> None:
    done = world.submit(waiting_spec(world.gate(), PER_STEP), "--async")
    assert done.exit_code == 0, done.stderr
    world.wait_until(lambda: world.only_run().statuses, "the step runs")
    # Modal limits how often it may be asked.
    limit = {"action": "error", "status": "RESOURCE_EXHAUSTED", "message": "rate limit exceeded"}
    rules = [{"rpc": "SandboxList*", **limit}, {"rpc": "SandboxTerminate*", **limit}]
    (world.state / "faults.json").write_text(json.dumps(rules))

    stopped = world.modalrun("stop", "--force", done.stdout.strip()).finish()

    assert stopped.exit_code == 0, stopped.stderr
    settled(world, {"wait": "stopped"})
