"""Ends of sandboxes that the process in them has no say in: out of memory, evicted, a failure."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.test_per_step import assert_all_over, boxes, per_step

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e


def script(world: World, **keys: Any) -> None:
    world.server()
    (world.state / "faults.json").write_text(json.dumps(keys))


def pipeline_mode(pipeline: str, more: str = "", **parameters: object) -> str:
    return per_step(pipeline, more, **parameters).replace("mode: per_step", "mode: pipeline")


@pytest.mark.exhaustive
def test_a_failure_with_exit_code_0_is_a_completion_if_zenml_says_so(world: World) -> None:
    script(world, sandboxes=[{"end": "failure-0", "times": None}])

    done = world.submit(per_step("diamond.diamond"))

    assert done.exit_code == 0, done.stderr
    assert world.only_run().status == "completed"
    assert len(boxes(world)) == 4
    assert "Run completed." in done.stderr
    assert {box.status for box in world.sandboxes()} == {2}


@pytest.mark.exhaustive
def test_a_dynamic_pipeline_whose_sandboxes_fail_with_exit_code_0(world: World) -> None:
    script(world, sandboxes=[{"end": "failure-0", "times": None}])

    done = world.submit("pipeline: growing.growing\ntarget: local\n", "--mode", "per_step")

    assert done.exit_code == 0, done.stderr
    assert len(boxes(world)) == 2
    assert " failed" not in done.stderr


def test_a_failure_with_exit_code_0_is_no_completion_by_itself(world: World) -> None:
    gate = world.gate()
    script(world, sandboxes=[{"role": "step", "end": "failure-0", "after": 1}])
    command = world.popen(per_step("waiting.waiting", gate=str(gate)))
    world.wait_until(lambda: len(boxes(world, "wait")) == 2, "the step was started again")
    gate.open()

    done = command.finish()

    assert done.exit_code == 0, done.stderr
    assert "Modal reports a failure, with exit code 0. It is started again" in done.stderr
    assert [(step.name, step.version) for step in world.only_run().steps] == [
        ("wait", 1),
        ("afterwards", 1),
    ]


@pytest.mark.parametrize(
    "mode", ["per_step", pytest.param("pipeline", marks=pytest.mark.exhaustive)]
)
def test_a_run_sandbox_that_is_out_of_memory(world: World, mode: str) -> None:
    script(world, sandboxes=[{"role": "run", "end": "out-of-memory", "after": 4}])
    spec = per_step("waiting.waiting", gate=str(world.gate()))

    done = world.submit(spec.replace("mode: per_step", f"mode: {mode}"))

    assert done.exit_code == 1, done.stderr
    assert "Run failed: its sandbox ran out of memory." in done.stderr
    advised = "the local Modal server sets no limit of memory" in " ".join(done.stderr.split())
    assert advised == (mode == "pipeline")
    run = world.only_run()
    assert (run.status, run.reason) == (
        "failed",
        "The run sandbox ended (out of memory, exit code 137).",
    )
    assert_all_over(world)
    status = world.modalrun("status", run.id, "--exit-status").finish()
    assert status.exit_code == 1
    assert "Run failed: its sandbox ran out of memory." in " ".join(status.stdout.split())


def test_a_run_sandbox_that_is_out_of_memory_while_nobody_looks(world: World) -> None:
    script(world, sandboxes=[{"role": "run", "end": "out-of-memory", "after": 2}])
    spec = pipeline_mode("waiting.waiting", gate=str(world.gate()))
    run_id = world.submit(spec, "--async").stdout.strip()
    world.wait_until(lambda: world.sandboxes()[0].finished_at, "the sandbox has ended")

    status = world.modalrun("status", run_id, "--exit-status").finish()
    assert status.exit_code == 1, status.stdout
    assert "but the run sandbox ran out of memory" in " ".join(status.stdout.split())
    settled = world.modalrun("reconcile", run_id).finish()
    assert settled.exit_code == 0, settled.stderr
    assert world.only_run().reason.startswith("The run sandbox ran out of memory; recorded by")


@pytest.mark.parametrize(
    "end", ["evicted", pytest.param("thrashing", marks=pytest.mark.exhaustive)]
)
def test_an_evicted_step_is_started_again(world: World, end: str) -> None:
    gate = world.gate()
    script(world, sandboxes=[{"role": "step", "end": end, "after": 1}])
    command = world.popen(per_step("waiting.waiting", gate=str(gate)))
    world.wait_until(lambda: len(boxes(world, "wait")) == 2, "the step was started again")
    gate.open()

    done = command.finish()

    assert done.exit_code == 0, done.stderr
    assert "Modal evicted the sandbox for the memory that it used. It is started" in done.stderr


@pytest.mark.parametrize(
    ("end", "more", "why"),
    [
        ("evicted", "memory_limit: 512MiB", "needed more memory than its limit of 512 MiB."),
        pytest.param(*("out-of-memory", "", "ran out of memory"), marks=pytest.mark.exhaustive),
    ],
)
def test_a_step_that_needs_more_memory_has_failed(
    world: World, end: str, more: str, why: str
) -> None:
    script(world, sandboxes=[{"role": "step", "end": end, "after": 1}])

    asked = "steps: {wait: {settings: {resources: {memory: 300MiB}}}}\n"
    done = world.submit(per_step("waiting.waiting", more, gate=str(world.gate())) + asked)

    assert done.exit_code == 1, done.stderr
    assert f"The sandbox {why}" in done.stderr
    (box,) = boxes(world, "wait")
    assert world.only_run().status == "failed"
    # The driver's sandbox has asked for more.
    shown = world.modalrun("status", "latest", "--output", "json").finish()
    (step, _) = json.loads(shown.stdout)["steps"]
    assert (step["sandbox"], step["memory_mib"]) == (box.id, 300)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("end", "how"), [("evicted", "was evicted by Modal"), ("failure-0", "is gone")]
)
def test_a_driver_that_is_gone_can_be_replaced(world: World, end: str, how: str) -> None:
    gate = world.gate()
    script(world, sandboxes=[{"role": "run", "end": end, "after": 4}])
    done = world.submit(per_step("waiting.waiting", gate=str(gate)))
    assert done.exit_code == 7, done.stderr
    assert f"The run's driver {how}" in done.stderr
    assert "The run is not over." in done.stderr
    command = [sys.executable, "-m", "modalrun", "resume", world.only_run().id]
    resumed = world.start(command, cwd=world.project)
    world.wait_until(lambda: boxes(world, "wait"), "the step sandbox was created")
    gate.open()
    done = resumed.finish()
    assert done.exit_code == 0, done.stderr
    assert len(boxes(world, "wait")) == 1
    assert_all_over(world)
