"""Stops, and records that are deleted, while a run goes: every command says the same."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_endings import waiting_spec
from tests.e2e.test_flavor import commands

if TYPE_CHECKING:
    from tests.world import Gate, World

pytestmark = pytest.mark.e2e

EVERY = pytest.mark.exhaustive
MODES = ["pipeline", pytest.param("per_step", marks=EVERY)]


def mode_of(mode: str) -> str:
    return f"settings: {{orchestrator: {{mode: {mode}}}}}"


def failing_spec(gate: Gate, mode: str) -> str:
    return f"""
pipeline: flavored.flavored
target: local
enable_cache: false
parameters:
  gate: {gate}
  wrong: true
{mode_of(mode)}
"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("waits", [(), pytest.param(("--async",), marks=EVERY)])
def test_a_run_whose_step_fails_after_a_stop_is_stopped_for_every_command(
    world: World, mode: str, waits: tuple[str, ...]
) -> None:
    gate = world.gate()
    submitting = world.popen(failing_spec(gate, mode), *waits)
    world.wait_until(lambda: world.runs() and "double" in world.only_run().statuses, "it runs")
    run_id = world.only_run().id
    stop = world.modalrun("stop", run_id)
    stop.stderr.wait_for("waiting for the running steps to finish: double")

    gate.open()

    stopped = stop.finish()
    assert (stopped.exit_code, "is stopped" in stopped.stderr) == (0, True), stopped.stderr
    done = submitting.finish()
    assert done.exit_code == (0 if waits else 7), done.stderr
    run = world.only_run()
    assert (run.status, run.statuses["double"]) == ("stopped", "failed")
    status = world.modalrun("status", run_id, "--exit-status", "--output", "json").finish()
    assert (status.exit_code, json.loads(status.stdout)["state"]) == (7, "stopped"), status.stdout
    listed = world.modalrun("list", "--state", "stopped").finish()
    assert run_id[:8] in listed.stdout, listed.stdout


@pytest.mark.parametrize("mode", ["pipeline", "per_step"])
@EVERY
def test_several_forced_stops_at_once(world: World, mode: str) -> None:
    done = world.submit(waiting_spec(world.gate(), mode_of(mode)), "--async")
    world.wait_until(lambda: world.only_run().statuses, "the step runs")
    run_id = done.stdout.strip()

    stops = [world.modalrun("stop", "--force", run_id) for _ in range(4)]

    for stop in stops:
        stopped = stop.finish()
        assert stopped.exit_code == 0, stopped.stderr
    assert (world.only_run().status, world.only_run().statuses) == ("stopped", {"wait": "stopped"})
    assert all(box.finished_at for box in world.sandboxes())


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("mode", "pipeline"),
    [
        ("pipeline", "waiting"),
        ("per_step", "waiting"),
        ("pipeline", "waiting_inline"),
        ("per_step", "waiting_isolated"),
    ],
)
def test_a_run_that_is_deleted_while_it_goes(world: World, mode: str, pipeline: str) -> None:
    gate = world.gate()
    spec = waiting_spec(gate, mode_of(mode)).replace("waiting.waiting", f"waiting.{pipeline}")
    submitting = world.popen(spec)
    submitting.stdout.wait_for("waiting in")
    run_id = world.only_run().id
    watching = world.modalrun("status", "--watch", run_id)
    watching.stdout.wait_for("running")
    following = world.modalrun("logs", "--follow", run_id)
    following.stdout.wait_for("waiting in")

    commands(world, f"zenml pipeline runs delete {run_id} -y")
    gate.open()

    for command in (submitting, watching, following):
        done = command.finish()
        assert done.exit_code == 4, (done.stdout, done.stderr)
        assert "completed" not in done.stderr.replace("wait completed", "")
        if command is not submitting:
            assert f"ZenML has no run {run_id}" in done.stderr, done.stderr
            continue
        assert done.stderr.count("The run's record was deleted in ZenML while it ran.") == 1
        for wrong in ("Traceback", "exit code 70", "reconcile", "did not succeed", "KeyError"):
            assert wrong not in done.stdout + done.stderr, done.stdout + done.stderr
    world.wait_until(lambda: all(box.finished_at for box in world.sandboxes()), "nothing runs")


@EVERY
@pytest.mark.parametrize("mode", ["pipeline", "per_step"])
def test_a_run_that_is_deleted_and_that_nobody_waits_for(world: World, mode: str) -> None:
    gate = world.gate()
    run_id = world.submit(waiting_spec(gate, mode_of(mode)), "--async").stdout.strip()
    world.wait_until(lambda: world.only_run().statuses, "the step runs")

    commands(world, f"zenml pipeline runs delete {run_id} -y")
    gate.open()

    world.wait_until(lambda: all(box.finished_at for box in world.sandboxes()), "nothing runs")
    output = "".join(file.read_text(errors="replace") for file in world.log_files())
    assert "Traceback" not in output
    assert "reconcile" not in output


@EVERY
@pytest.mark.parametrize("mode", ["pipeline", "per_step"])
def test_a_run_whose_stack_was_deleted(world: World, mode: str) -> None:
    commands(
        world,
        "zenml orchestrator register orch --flavor=local",
        "zenml stack register gone -o orch -a default",
    )
    done = world.submit(waiting_spec(world.gate(), f"stack: gone\n{mode_of(mode)}"), "--async")
    assert done.exit_code == 0, done.stderr
    world.wait_until(lambda: world.only_run().statuses, "the step runs")
    world.zenml("from zenml.client import Client\nresult = Client().delete_stack('gone')")

    run_id = done.stdout.strip()

    stopped = world.modalrun("stop", "--force", run_id).finish()

    assert stopped.exit_code == 0, stopped.stderr
    assert all(box.finished_at for box in world.sandboxes())
    for command in ("status", "logs", "reconcile", "stop"):
        asked = world.modalrun(command, run_id).finish()
        assert asked.exit_code == 0, (command, asked.stdout, asked.stderr)
        assert command == "logs" or "stopped" in asked.stdout + asked.stderr
    assert world.modalrun("list").finish().exit_code == 0


def test_ctrl_c_ends_the_commands_that_wait_for_a_run(world: World) -> None:
    gate = world.gate()
    submitting = world.popen(waiting_spec(gate))
    submitting.stdout.wait_for("waiting in")
    run_id = world.only_run().id
    watching = world.modalrun("status", "--watch", run_id)
    watching.stdout.wait_for("running")

    watching.signal(signal.SIGINT)

    done = watching.finish()
    assert done.exit_code == 130
    assert "Interrupted. This ends the command, not the run." in done.stderr
    stop = world.modalrun("stop", run_id)
    stop.stderr.wait_for("waiting for the running steps")

    stop.signal(signal.SIGINT)

    done = stop.finish()
    assert done.exit_code == 130
    assert (
        f"Interrupted. The run {run_id} was asked to stop; 'modalrun status {run_id}' shows"
        " whether it has." in done.stderr
    )
    gate.open()
    assert submitting.finish().exit_code == 7
