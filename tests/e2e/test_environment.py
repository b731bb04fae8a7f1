"""The Modal environment that MODAL_ENVIRONMENT or a setting names: all of a run is there."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.test_driver import driver_of
from tests.e2e.test_flavor import commands, script
from tests.e2e.test_per_step import assert_all_over, boxes, per_step

if TYPE_CHECKING:
    from tests.world import Command, Gate, World

pytestmark = pytest.mark.e2e
EXHAUSTIVE = pytest.mark.exhaustive

RECORDED = """
from zenml.client import Client
runs = Client().list_pipeline_runs(sort_by="created", hydrate=True)
result = [dict(run.run_metadata) for run in runs]
"""


def make(world: World, environment: str = "dev") -> None:
    """Create an environment with a volume and a secret that no other one has."""
    code = (
        "import modal\n"
        f"modal.Environment.objects.create({environment!r})\n"
        f"modal.Volume.objects.create('data', environment_name={environment!r})\n"
        f"modal.Secret.objects.create('word', {{'WORD': 'w'}}, environment_name={environment!r})\n"
    )
    done = world.start([sys.executable, "-c", code], **world.server()).finish()
    assert done.exit_code == 0, done.stderr


def environments(world: World) -> set[str]:
    """The environments of all sandboxes."""
    rows = world._server("SELECT id, environment FROM objects WHERE kind = 'app'")
    of_app = dict(rows)
    return {of_app[box.app_id] for box in world.sandboxes()}


NAMES = "secrets: [word], volumes: {data: /data}"


def waiting(world: World, **environment: str) -> tuple[Command, Gate]:
    """A `per_step` run whose step waits at a gate, with a secret and a volume."""
    gate = world.gate()
    text = per_step("waiting.waiting", NAMES, gate=str(gate))
    command = world.popen(text, **environment)
    world.wait_until(lambda: boxes(world, "wait"), "the step sandbox was created")
    return command, gate


def test_steps_records_and_stop_are_in_the_environment_of_the_submission(world: World) -> None:
    make(world)
    command, _ = waiting(world, MODAL_ENVIRONMENT="dev")
    run = world.wait_until(world.only_run, "the run is recorded")
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")

    assert environments(world) == {"dev"}
    (driver,) = (box for box in world.sandboxes() if box.tags["modalrun-role"] == "run")
    assert {"MODAL_ENVIRONMENT", "MODAL_BUILD_VALIDATION"} <= set(driver.variables)
    # From a shell that knows nothing of it.
    shown = world.modalrun("status", run.id).finish()
    assert "target local, environment dev" in " ".join(shown.stdout.split())
    stopped = world.modalrun("stop", "--force", run.id).finish()
    assert stopped.exit_code == 0, stopped.stderr
    assert_all_over(world)
    command.finish()
    (recorded,) = world.zenml(RECORDED)
    assert recorded["modalrun_environment"] == "dev"


def test_the_environment_in_the_plan(world: World) -> None:
    path = str(world.spec(per_step("diamond.diamond")))

    def plan(*arguments: str, **environment: str) -> Any:
        done = world.modalrun("plan", path, *arguments, "--explain", **environment).finish()
        assert done.exit_code == 0, done.stderr
        return done.stdout

    assert "environment  dev" in plan(MODAL_ENVIRONMENT="dev")
    assert "environment  mine" in plan("--env", "mine", MODAL_ENVIRONMENT="dev")


@pytest.mark.parametrize("by", ["variable", pytest.param("option", marks=EXHAUSTIVE)])
def test_an_environment_that_nobody_made(world: World, by: str) -> None:
    text = per_step("diamond.diamond")
    if by == "variable":
        done = world.submit(text, MODAL_ENVIRONMENT="nowhere")
    else:
        done = world.submit(text, "--env", "nowhere")
    assert done.exit_code == 4, done.stderr
    assert "nowhere" in done.stderr
    assert "modal environment create nowhere" in done.stderr
    assert "Nothing was created." in done.stderr
    assert (world.runs(), world.sandboxes(), world.apps()) == ([], [], [])


@EXHAUSTIVE
def test_without_any_the_default_one_is_recorded_by_its_name(world: World) -> None:
    done = world.submit(per_step("diamond.diamond"))
    assert done.exit_code == 0, done.stderr
    assert environments(world) == {"main"}
    (recorded,) = world.zenml(RECORDED)
    assert recorded["modalrun_environment"] == "main"


@EXHAUSTIVE
def test_a_run_is_resumed_where_it_was(world: World) -> None:
    """Modal knows its sandbox there; ZenML's record alone is not believed."""
    make(world)
    command, gate = waiting(world, MODAL_ENVIRONMENT="dev")
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    (driver,) = (box for box in world.sandboxes() if box.tags["modalrun-role"] == "run")
    os.kill(driver_of(world), signal.SIGKILL)
    killed = world.modalrun("local", "kill", driver.id).finish()
    assert killed.exit_code == 0, killed.stderr
    command.finish()

    resuming = world.start(
        [sys.executable, "-m", "modalrun", "resume", world.only_run().id], cwd=world.project
    )
    resuming.stderr.wait_for("environment dev", 120)
    gate.open()
    done = resuming.finish()
    assert done.exit_code == 0, done.stderr
    assert environments(world) == {"dev"}
    assert len(boxes(world, "wait")) == 1, "the step is adopted"


@EXHAUSTIVE
def test_a_dynamic_run_and_its_isolated_steps(world: World) -> None:
    make(world)
    settings = {"orchestrator": {"mode": "per_step", "secrets": ["word"]}}
    text = json.dumps({"pipeline": "growing.growing", "target": "local", "settings": settings})
    done = world.submit(text, MODAL_ENVIRONMENT="dev")
    assert done.exit_code == 0, done.stderr
    assert len(world.sandboxes()) == 3
    assert environments(world) == {"dev"}


@EXHAUSTIVE
@pytest.mark.local_store("the stack is registered here")
def test_a_registered_stack(world: World) -> None:
    make(world)
    commands(
        world,
        "zenml orchestrator flavor register modalrun.flavor.ModalrunOrchestratorFlavor",
        "zenml orchestrator register ours --flavor=modalrun --target=local",
        "zenml stack register ours -o ours -a default --set",
    )
    done = script(world, "flavored.py", "per_step", MODAL_ENVIRONMENT="dev").finish()
    assert done.exit_code == 0, done.stderr
    assert environments(world) == {"dev"}
    (recorded,) = world.zenml(RECORDED)
    assert recorded["modalrun_environment"] == "dev"
