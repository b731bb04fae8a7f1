"""Sandboxes that Modal can't start: infrastructure, which is tried again, and nobody's mistake."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.test_per_step import assert_all_over, boxes, per_step

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

CONFLICT = {"rpc": "SandboxCreateV2", "action": "error", "message": "loading container failed"}


def script(world: World, **keys: Any) -> None:
    world.server()
    (world.state / "faults.json").write_text(json.dumps(keys))


def test_conflicts_while_sandboxes_start(world: World) -> None:
    run = {**CONFLICT, "status": "ABORTED"}
    step = {**CONFLICT, "status": "FAILED_PRECONDITION", "skip": 1}
    script(world, rules=[run, step])

    done = world.submit(per_step("diamond.diamond"))

    assert done.exit_code == 0, done.stderr
    said = " ".join(done.stderr.split())
    problem = "could not start: Modal can't do this now: loading container failed"
    assert f"The run sandbox {problem}; trying again" in said
    assert f"The sandbox {problem}. It is started again (1 of 2)" in said + done.stdout
    assert [(s.status, s.version) for s in world.only_run().steps] == [("completed", 1)] * 4
    assert len(boxes(world)) == 4
    assert_all_over(world)


def test_a_run_sandbox_that_never_starts(world: World) -> None:
    script(world, rules=[{**CONFLICT, "status": "FAILED_PRECONDITION", "times": None}])
    page = world.root / "summary.md"
    job = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(page)}

    done = world.submit(per_step("diamond.diamond"), **job)

    assert done.exit_code == 5, done.stderr
    said = "The sandbox could not start (attempts: 3): Modal can't do this now: loading container"
    assert said in " ".join(done.stderr.split())
    assert f"\n::error title=modalrun::{said}" in done.stderr
    assert "loading container failed" in page.read_text()
    run = world.only_run()
    assert (run.status, run.steps) == ("failed", [])
    assert "The run sandbox was not created" in run.reason
    status = world.modalrun("status", run.id, "--exit-status").finish()
    assert status.exit_code == 5, status.stdout


@pytest.mark.parametrize("role", ["run", pytest.param("step", marks=pytest.mark.exhaustive)])
def test_a_gpu_sandbox_that_ends_before_it_has_a_place(world: World, role: str) -> None:
    script(world, sandboxes=[{"role": role, "end": "not-scheduled"}])
    mode = "pipeline" if role == "run" else "per_step"

    done = world.submit(per_step("diamond.diamond", "gpu: T4"), "--mode", mode)

    assert done.exit_code == 0, done.stderr
    assert "loading container failed" in done.stderr + done.stdout
    assert world.only_run().status == "completed"
    assert_all_over(world)


@pytest.mark.exhaustive
@pytest.mark.parametrize("role", ["run", "step"])
def test_a_sandbox_that_ends_before_it_has_a_place_holds_nothing(world: World, role: str) -> None:
    fault = {"role": role, "end": "not-scheduled", "after": 1}
    script(world, sandboxes=[fault | ({"skip": 1} if role == "step" else {})])

    command = world.popen(per_step("diamond.diamond"))
    done = command.finish(60)

    assert "can't be read" not in done.stderr + done.stdout
    assert (done.exit_code == 0) == (role == "step"), done.stderr
    logs = world.modalrun("logs", world.only_run().id).finish(60)
    assert "can't be read" not in logs.stderr + logs.stdout


@pytest.mark.exhaustive
@pytest.mark.parametrize("fault", [{"status": "INVALID_ARGUMENT"}, {"status": "ABORTED"}])
def test_a_sandbox_that_is_not_tried_again_uses_up_no_retries(
    world: World, fault: dict[str, str]
) -> None:
    script(world, rules=[{**CONFLICT, **fault, "skip": 1, "times": None}])

    done = world.submit(per_step("ends.one", way="raises", retries=2))

    assert done.exit_code == 1, done.stderr
    assert "raises  failed" in done.stderr and "(try" not in done.stderr
    run = world.only_run()
    # ZenML takes no failure as the last one before there are as many.
    assert [step.status for step in run.steps] == ["retried", "retried", "failed"]
    status = world.modalrun("status", run.id, "--output", "json", "--timeline").finish()
    (step,) = json.loads(status.stdout)["steps"]
    assert (step["state"], step["attempt"]) == ("failed", 1)
    assert "loading container failed" in step["exit_reason"]
    assert "(try" not in world.modalrun("status", run.id, "--timeline").finish().stdout
