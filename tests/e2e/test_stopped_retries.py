"""Steps with retries left: their run is stopped or fails, or another driver goes on with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

EVERY = pytest.mark.exhaustive


@pytest.mark.parametrize(
    ("pipeline", "mode"),
    [
        ("isolated", "per_step"),
        pytest.param("static", "pipeline", marks=EVERY),
        pytest.param("static", "per_step", marks=EVERY),
        pytest.param("submitted", "pipeline", marks=EVERY),
        pytest.param("dynamic", "pipeline", marks=EVERY),
    ],
)
@pytest.mark.parametrize("force", [(), pytest.param(("--force",), marks=EVERY)])
def test_a_step_that_waits_for_its_retry_is_stopped(
    world: World, pipeline: str, mode: str, force: tuple[str, ...]
) -> None:
    submitting = world.popen(f"pipeline: retrying.{pipeline}\ntarget: local\n", "--mode", mode)
    world.wait_until(
        lambda: world.runs() and world.only_run().statuses.get("fails") == "retrying", "it waits"
    )

    stopped = world.modalrun("stop", world.only_run().id, *force).finish()

    assert stopped.exit_code == 0, stopped.stderr
    done = submitting.finish()
    assert done.exit_code == 7
    assert re.search(r"^fails +stopped", done.stderr, re.M), done.stderr
    run = world.only_run()
    assert run.status == "stopped"
    assert [step.status for step in run.steps] in (["stopped"], ["retried", "stopped"])
    assert "bad luck" in run.steps[-1].exception


@pytest.mark.parametrize("mode", ["fail_fast", pytest.param("continue_on_failure", marks=EVERY)])
def test_a_step_that_fails_after_the_function_gets_no_retry(world: World, mode: str) -> None:
    started, gate = world.gate("started"), world.gate()
    spec = f"""
pipeline: retrying.raising
target: local
mode: per_step
execution_mode: {mode}
parameters: {{started: {started}, gate: {gate}}}
"""
    submitting = world.popen(spec)
    if mode == "continue_on_failure":
        submitting.stdout.wait_for("the function raises")
        gate.open()

    done = submitting.finish()

    assert done.exit_code == 1, done.stderr
    run = world.only_run()
    assert (run.status, run.statuses) == ("failed", {"late": "stopped"})
    assert "as asked" in run.reason
    (late,) = run.steps
    early = "It was ended early: the run has failed."
    reason = early if mode == "fail_fast" else "ValueError: bad luck"
    assert reason in late.exception


@EVERY
@pytest.mark.timeout(900)
def test_another_driver_makes_the_retry_and_no_more(world: World) -> None:
    spec = "pipeline: retrying.isolated\ntarget: local\nparameters: {retries: 1}\n"
    submitting = world.popen(spec, "--mode", "per_step")
    world.wait_until(
        lambda: world.runs() and world.only_run().statuses.get("fails") == "retrying", "it waits"
    )
    driver = world.sandboxes()[0]
    assert world.modal("container", "stop", "--yes", driver.task_id).exit_code == 0
    assert submitting.finish().exit_code == 7

    where = ("--source-root", str(world.project))
    resumed = world.modalrun("resume", world.only_run().id, *where).finish()

    assert resumed.exit_code == 1, resumed.stderr
    run = world.only_run()
    assert [step.status for step in run.steps] == ["retried", "failed"]
    assert "bad luck" in run.reason
