"""Stops, and records that are deleted, while a run goes: every command says the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_endings import waiting_spec
from tests.e2e.test_flavor import commands

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

EVERY = pytest.mark.exhaustive
MODES = ["pipeline", pytest.param("per_step", marks=EVERY)]


def mode_of(mode: str) -> str:
    return f"settings: {{orchestrator: {{mode: {mode}}}}}"


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


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_is_deleted_while_it_goes(world: World, mode: str) -> None:
    gate = world.gate()
    submitting = world.popen(waiting_spec(gate, mode_of(mode)))
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
        assert f"ZenML has no run {run_id}" in done.stderr, done.stderr
        assert "completed" not in done.stderr.replace("wait completed", "")
    world.wait_until(lambda: all(box.finished_at for box in world.sandboxes()), "nothing runs")


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

    # ZenML deletes the deployment with the stack, and then takes no status of the run any more.
    assert stopped.exit_code == 4, stopped.stderr
    assert "The sandboxes of the run" in stopped.stderr
    assert "its deployment was deleted" in stopped.stderr
    assert all(box.finished_at for box in world.sandboxes())
    for command, code in (("status", 0), ("logs", 0), ("reconcile", 4), ("stop", 4)):
        asked = world.modalrun(command, run_id).finish()
        assert asked.exit_code == code, (command, asked.stdout, asked.stderr)
    assert world.modalrun("list").finish().exit_code == 0
