"""Dynamic pipelines, whose function runs in the run sandbox and decides which steps there are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.test_flavor import COMMANDS, commands, register, script

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

SPEC = "pipeline: growing.growing\ntarget: local\nsettings: {orchestrator: {timeout: 300}}\n"

LONG = 300.0

GET_STEP = ("printenv", "MODALRUN_STEP")


def boxes(world: World, step: str | None = None) -> list[Any]:
    """The sandboxes of a step, or the run sandboxes; oldest first."""
    return [box for box in world.sandboxes() if box.tags.get("modalrun-step") == step]


def kill(world: World, box: Any) -> None:
    """End a sandbox as somebody does on Modal's dashboard."""
    done = world.modal("container", "stop", "--yes", box.task_id)
    assert done.exit_code == 0, done.stderr


def test_a_dynamic_pipeline(world: World) -> None:
    done = world.submit(SPEC, "--mode", "per_step")

    assert done.exit_code == 0, done.stderr
    run = world.only_run()
    names = ["count", "square", "square_2", "total"]
    assert run.status == "completed"
    assert run.statuses == dict.fromkeys(names, "completed")
    # The run sandbox prints lines of its own, of the function and of inline steps.
    assert "count | counting in the run sandbox\n" in done.stdout
    assert "\nthe function waits\n" in done.stdout
    assert "square | squaring 0 in square\n" in done.stdout
    assert "square_2 | squaring 1 in square_2\n" in done.stdout
    assert "total | total 1 in the run sandbox\n" in done.stdout
    assert "does not support" not in done.stdout + done.stderr
    for name in names:
        assert re.search(rf"^{name} +completed", done.stderr, re.M), done.stderr
    driver, *steps = world.sandboxes()
    assert len(steps) == 2
    assert {box.timeout_secs for box in steps} == {200}
    assert [box.gpu for box in (driver, *steps)] == ["", "T4", "T4"]
    if world.place is None:
        stored = "".join(path.read_text() for path in world.zenml_config.rglob("*.log"))
        assert "the function waits" in stored
        assert "counting in the run sandbox" in stored
        # No events.
        assert "\\u001e" not in stored and "\x1e" not in stored

    failed = world.submit(SPEC, "--param", "wrong=true")

    assert failed.exit_code == 1, failed.stderr
    run = world.runs()[1]
    assert (run.status, run.statuses["square_2"]) == ("failed", "failed")
    assert "ValueError: as asked" in failed.stdout + failed.stderr
    assert run.reason == "Step `square_2` failed: ValueError: as asked (growing.py:36)"
    assert "total" not in run.statuses
    # All of it in one sandbox.
    assert len(world.sandboxes()) == 4


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_a_lost_step_sandbox_and_a_lost_driver(world: World) -> None:
    gate = world.gate()
    command = world.popen(SPEC, "--mode", "per_step", "--param", f"gate={gate}")
    command.stdout.wait_for("squaring 0")

    (first,) = boxes(world, "square")
    kill(world, first)

    command.stderr.wait_for("It is started again (1 of 2), without using up a retry.")
    world.wait_until(lambda: len(boxes(world, "square")) == 2, "another sandbox")
    world.wait_until(lambda: command.stdout.text.count("squaring 0") == 2, "the step runs again")
    (driver,) = boxes(world)
    kill(world, driver)
    left = command.finish(LONG)
    assert left.exit_code == 7, left.stderr
    run = world.only_run()
    assert f"modalrun resume {run.id}" in left.stderr
    assert (run.status, run.statuses["square"]) == ("running", "running")

    resume = world.modalrun("resume", run.id, "--source-root", str(world.project))
    resume.stderr.wait_for("another driver takes over")
    gate.open()
    resumed = resume.finish(LONG)
    assert resumed.exit_code == 0, resumed.stderr
    run = world.only_run()
    assert run.status == "completed"
    # The lost sandbox has cost no record, and nothing that was done has run again.
    assert sorted((s.name, s.status, s.version) for s in run.steps) == [
        (name, "completed", 1) for name in ("count", "square", "square_2", "total")
    ]
    assert [len(boxes(world, name)) for name in ("square", "square_2")] == [2, 1]
    assert all(box.finished_at for box in world.sandboxes())
    # What was printed before is found from the new run sandbox.
    logs = world.modalrun("logs", run.id, HOME=str(world.home)).finish()
    assert "square_2 | squaring 1 in square_2\n" in logs.stdout, logs.stderr
    # What the first driver ran itself stands in its own sandbox.
    assert logs.stdout.count("count | counting in the run sandbox\n") == 1, logs.stdout
    assert logs.stdout.index("counting in") < logs.stdout.index("total 1 in")


ANSWER = """
from uuid import UUID
from zenml.client import Client
from zenml.enums import RunWaitConditionResolution
client = Client()
(condition,) = client.list_run_wait_conditions().items
client.resolve_run_wait_condition(condition.id, RunWaitConditionResolution.CONTINUE, result=5)
result = None
"""

REQUESTS = """
from zenml.client import Client
(run,) = Client().list_pipeline_runs(hydrate=True).items
stored = run.run_metadata
result = [one == stored["modalrun_requested"] for one in stored["modalrun_resumes"]]
"""


def test_a_paused_run_without_a_driver_is_resumed_where_it_ran(world: World) -> None:
    # The stack's own orchestrator is ZenML's local one.
    asked = world.submit(SPEC, "--param", "ask=true")

    assert asked.exit_code == 0, asked.stderr
    run = world.only_run()
    assert (run.status, run.statuses.get("total")) == ("paused", None)
    root = world.project.resolve()
    assert f"modalrun resume {run.id} --source-root {root}\n" in asked.stderr
    assert "pipeline runs resume" not in asked.stderr
    assert run.id in world.modalrun("list", "--state", "paused", "--output", "json").finish().stdout
    world.zenml(ANSWER)

    where = ("--source-root", str(world.project))
    resumed = world.modalrun("resume", run.id, *where, HOME=str(world.home)).finish(LONG)

    assert resumed.exit_code == 0, resumed.stderr
    assert "total | total 6 in the run sandbox\n" in resumed.stdout
    assert "counting" not in resumed.stdout
    run = world.only_run()
    assert (run.status, run.statuses["total"]) == ("completed", "completed")
    first, second = boxes(world)
    assert first.name == second.name
    assert world.zenml(REQUESTS) == [True]


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_a_run_that_waits_for_an_answer_is_resumed_by_zenml(world: World) -> None:
    register(world)

    asked = script(world, "growing.py", "ask").finish(LONG)

    assert asked.exit_code == 0, asked.stderr
    run = world.only_run()
    assert "Run paused: it goes on when it is answered, and then resumed.\n" in asked.stderr
    assert f"modalrun resume {run.id}" in asked.stderr
    assert (run.status, run.statuses.get("total")) == ("paused", None)
    status, reconciled = commands(
        world, f"modalrun status {run.id} --exit-status", f"modalrun reconcile {run.id}"
    )
    assert "exit code 0" in status
    assert "The record is right. The run is paused" in reconciled
    assert world.only_run().status == "paused"

    condition = world.zenml(
        "from zenml.client import Client\n"
        "result = str(Client().list_run_wait_conditions().items[0].id)"
    )
    resumed = script(
        world,
        "-c",
        COMMANDS,
        f"zenml pipeline runs wait-conditions resolve {condition} --resolution continue --result 5",
        f"zenml pipeline runs resume {run.id}",
    ).finish(LONG)

    assert resumed.exit_code == 0, resumed.stderr
    assert "total | total 6 in the run sandbox\n" in resumed.stdout
    assert "counting" not in resumed.stdout
    run = world.only_run()
    assert (run.status, run.statuses["total"]) == ("completed", "completed")
    first, second = boxes(world)
    assert first.name == second.name
    # Both run sandboxes have run steps themselves; nothing of either is lost.
    logs = world.modalrun("logs", run.id, HOME=str(world.home)).finish()
    assert logs.stdout.count("count | counting in the run sandbox\n") == 1, logs.stderr
    assert logs.stdout.count("total | total 6 in the run sandbox\n") == 1, logs.stderr


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["continue_on_failure", "fail_fast"])
@pytest.mark.parametrize("graceful", [True, False])
def test_stop(world: World, graceful: bool, mode: str) -> None:
    gate = world.gate()
    spec = f"{SPEC}execution_mode: {mode}\n"
    command = world.popen(spec, "--mode", "per_step", "--param", f"gate={gate}")
    command.stdout.wait_for("squaring 0")
    command.stdout.wait_for("squaring 1")
    run_id = world.only_run().id

    stop = world.modalrun("stop", run_id, *([] if graceful else ["--force"]))
    if graceful:
        stop.stderr.wait_for("waiting for the running steps to finish")
        gate.open()
    stopped = stop.finish(LONG)
    done = command.finish(LONG)

    assert stopped.exit_code == 0, stopped.stderr
    assert done.exit_code == 7, done.stderr
    # Not: its driver was ended, and another one can take over.
    assert "\nRun stopped.\n" in done.stderr
    run = world.only_run()
    assert run.status == "stopped"
    assert run.statuses["square"] == ("completed" if graceful else "stopped")
    assert "total" not in run.statuses
    # One that ended while it was stopped is not taken for one that was lost.
    assert len(boxes(world, "square")) == 1
    assert all(box.finished_at for box in world.sandboxes())


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_a_step_sandbox_that_is_lost_during_a_graceful_stop(world: World) -> None:
    command = world.popen(SPEC, "--mode", "per_step", "--param", f"gate={world.gate()}")
    command.stdout.wait_for("squaring 0")
    stop = world.modalrun("stop", world.only_run().id)
    stop.stderr.wait_for("waiting for the running steps to finish")

    (box,) = boxes(world, "square")
    kill(world, box)

    assert stop.finish(LONG).exit_code == 0
    assert command.finish(LONG).exit_code == 7
    run = world.only_run()
    assert (run.status, run.statuses["square"]) == ("stopped", "stopped")
    assert len(boxes(world, "square")) == 1


def assert_labels_of_a_child(world: World, done: Any) -> None:
    """Check that the step `total` of a run of `outer` is told from that of its child `inner`."""
    child, own = (f"{label} | total 0 in the run sandbox\n" for label in ("inner/total", "total"))
    assert re.findall(r"^.*total 0 in .*\n", done.stdout, re.M) == [child, own]
    for label, line in (("total", own), ("inner/total", child)):
        logs = world.modalrun("logs", world.runs()[0].id, "--step", label).finish()
        assert re.findall(r"^.*total 0 in .*\n", logs.stdout, re.M) == [line], logs.stderr


@pytest.mark.exhaustive
def test_the_steps_of_a_child_pipeline_have_labels_of_their_own(world: World) -> None:
    done = world.submit(SPEC.replace("growing.growing", "growing.outer"))

    assert done.exit_code == 0, done.stderr
    assert "inner/square | squaring 0 in the run sandbox\n" in done.stdout
    assert_labels_of_a_child(world, done)
    parent, child = world.runs()
    logs = world.modalrun("logs", child.id).finish()
    assert f"is a child of {parent.id}, whose logs have its lines" in logs.stderr
    shown = world.modalrun("status", child.id).finish()
    assert re.search(rf"child of +{parent.id}\n", shown.stdout), shown.stderr
    assert f"  child   inner: {child.id} (completed)\n" in done.stderr
    shown = world.modalrun("status", parent.id).finish()
    assert f"  child     inner: {child.id} (completed)\n" in shown.stdout
    listed = world.modalrun("list", "--all").finish().stdout
    assert re.search(
        rf"^{child.id[:8]} .* pipeline +local .* -\n.* part of {parent.name} ", listed, re.M
    )


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_a_child_pipeline(world: World) -> None:
    spec = SPEC.replace("growing.growing", "growing.outer")

    done = world.submit(spec, "--mode", "per_step")

    assert done.exit_code == 0, done.stderr
    # Its steps get sandboxes too, and its image is the pipeline's.
    assert "inner/square | squaring 0 in square\n" in done.stdout
    assert_labels_of_a_child(world, done)
    assert [run.status for run in world.runs()] == ["completed", "completed"]

    command = world.popen(spec, "--mode", "per_step", "--param", f"gate={world.gate()}")
    command.stdout.wait_for("squaring 0")
    parent = world.runs()[2].id
    asked = world.modalrun("exec", parent, "--step", "inner/square", "--", *GET_STEP).finish()
    assert asked.stdout == "square\n", asked.stderr
    stopped = world.modalrun("stop", parent, "--force").finish(LONG)

    assert stopped.exit_code == 0, stopped.stderr
    assert command.finish(LONG).exit_code == 7
    # The child's run and its step end with it: nobody else would record that.
    assert [run.status for run in world.runs()[2:]] == ["stopped", "stopped"]
    assert world.runs()[3].statuses == {"square": "stopped"}
    assert all(box.finished_at for box in world.sandboxes())
