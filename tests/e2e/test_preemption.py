"""Sandboxes that Modal preempts: SIGINT to the init, and gone after a grace period."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.processes import outside

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

SAID = "The sandbox was interrupted (SIGINT), as Modal does before it preempts one."


def preempt(world: World, role: str, after: float = 2.5) -> None:
    """Preempt the first sandbox of a role some seconds after its process has started.

    It is killed later than by Modal: on a busy machine the record of its end takes long.
    """
    world.server()
    fault = {"role": role, "end": "preempted", "after": after, "grace": 120}
    (world.state / "faults.json").write_text(json.dumps({"sandboxes": [fault]}))


def spec(world: World, mode: str, gate: object, pipeline: str = "waiting.waiting") -> str:
    return f"""
pipeline: {pipeline}
target: local
parameters: {{gate: {gate}}}
settings: {{orchestrator: {{mode: {mode}, gpu: T4}}}}
steps: {{wait: {{retry: {{max_retries: 1, delay: 0}}}}}}
"""


@pytest.mark.parametrize(
    "after",
    # In the step's code; while its processes start.
    [2.5, *(pytest.param(seconds, marks=pytest.mark.exhaustive) for seconds in (0.05, 0.2, 0.8))],
)
def test_a_preempted_step_runs_again_and_uses_up_no_retry(world: World, after: float) -> None:
    gate = world.gate()
    preempt(world, "step", after)
    command = world.popen(spec(world, "per_step", gate))
    boxes = world.wait_until(
        lambda: [b for b in world.sandboxes() if b.tags.get("modalrun-step") == "wait"][1:],
        "the step has a second sandbox",
    )
    gate.open()

    done = command.finish()

    assert done.exit_code == 0, done.stderr
    assert len(boxes) == 1
    assert f"{SAID} It is started again (1 of 2), without using up a retry." in done.stderr
    assert "KeyboardInterrupt" not in done.stdout + done.stderr
    (first, *_) = [b for b in world.sandboxes() if b.tags.get("modalrun-step") == "wait"]
    assert first.exitcode == 130
    run = world.only_run()
    assert [(s.name, s.version, s.status) for s in run.steps] == [
        ("wait", 1, "completed"),
        ("afterwards", 1, "completed"),
    ]


@pytest.mark.exhaustive
def test_a_step_that_is_ended_while_its_output_is_stored_has_succeeded(world: World) -> None:
    gate = world.gate()
    command = world.popen(
        f"pipeline: storing.storing\ntarget: local\nparameters: {{gate: {gate}}}\n"
        "settings: {orchestrator: {mode: per_step}}"
    )
    found = re.search(r"storing in (\d+)", command.stdout.wait_for("storing in"))
    assert found
    (box,) = [box for box in world.sandboxes() if box.tags["modalrun-role"] == "step"]

    os.kill(outside(box.id, int(found[1])), signal.SIGTERM)
    gate.open()

    done = command.finish()
    assert done.exit_code == 0, done.stderr
    assert [(s.version, s.status) for s in world.only_run().steps] == [(1, "completed")]


@pytest.mark.exhaustive
def test_a_preempted_driver_leaves_its_steps(world: World) -> None:
    gate = world.gate()
    preempt(world, "run", after=8)

    done = world.submit(spec(world, "per_step", gate))

    assert done.exit_code == 7, done.stderr
    assert "The run's driver was ended by Modal, as when it preempts one" in done.stderr
    assert "The run is not over." in done.stderr
    (run,) = [box for box in world.sandboxes() if box.tags["modalrun-role"] == "run"]
    assert run.exitcode == 130
    command = [sys.executable, "-m", "modalrun", "resume", world.only_run().id]
    resumed = world.start(command, cwd=world.project)
    gate.open()
    done = resumed.finish()
    assert done.exit_code == 0, done.stderr
    steps = world.only_run().steps
    assert [(step.name, step.version) for step in steps] == [("wait", 1), ("afterwards", 1)]
    assert len([box for box in world.sandboxes() if box.tags["modalrun-role"] == "step"]) == 2


def test_a_preempted_run_is_told_as_such(world: World) -> None:
    preempt(world, "run")

    done = world.submit(spec(world, "pipeline", world.gate()))

    assert done.exit_code == 7, done.stderr
    assert "Run failed: its sandbox was ended by Modal, as when it preempts one.\n" in done.stderr
    assert "  next    with 'mode: per_step' only the preempted step runs again" in done.stderr
    assert f"  rerun   modalrun rerun {world.only_run().id}" in done.stderr
    assert "Received signal 15" not in done.stdout + done.stderr
    assert "KeyboardInterrupt" not in done.stdout + done.stderr
    run = world.only_run()
    assert run.status == "failed"
    assert SAID[1:-1] in run.reason
    assert world.sandboxes()[0].exitcode == 130
    assert not [box for box in world.sandboxes() if not box.finished_at]
