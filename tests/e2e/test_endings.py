"""Runs that are ended from outside, or by a process that dies: no step and no run stays running."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.processes import outside, parent_of

if TYPE_CHECKING:
    from tests.world import Command, Gate, Result, World

pytestmark = pytest.mark.e2e


def waiting_spec(gate: Gate, more: str = "") -> str:
    return f"""
pipeline: waiting.waiting
target: local
parameters:
  gate: {gate}
{more}
"""


RETRY = "steps: {wait: {retry: {max_retries: 3, delay: 0}}}"


class Pids(NamedTuple):
    """Process ids of a run in `pipeline` mode."""

    worker: int
    runner: int
    supervisor: int


def pids(world: World, command: Command) -> Pids:
    """The processes of the run, once the step waits."""
    found = re.search(r"waiting in (\d+) below (\d+)", command.stdout.wait_for("waiting in"))
    assert found
    (sandbox,) = world.sandboxes()
    worker, runner = (outside(sandbox.id, int(pid)) for pid in found.groups())
    return Pids(worker, runner, parent_of(runner))


def assert_settled(world: World, done: Result, exit_code: int) -> None:
    """The run and its one step are over in ZenML, nothing came after, and the summary says so."""
    assert done.exit_code == exit_code, done.stderr
    run = world.only_run()
    assert run.status in {"failed", "stopped"}
    (step,) = run.steps
    # ZenML has no final failure for a step with retries left.
    assert (step.name, step.status) in {("wait", run.status), ("wait", "stopped")}
    assert step.end is not None
    assert re.search(rf"^wait +{step.status}", done.stderr, re.M), done.stderr
    assert run.id in done.stderr
    assert "afterwards" not in done.stdout


def test_a_run_that_takes_too_long_is_timed_out(world: World) -> None:
    settings = "settings: {orchestrator: {timeout: 12}}"
    world.server()
    # Modal's timeout counts from the creation, so the deadline must, too.
    (world.state / "faults.json").write_text(json.dumps({"boot_delay": 3}))
    done = world.submit(waiting_spec(world.gate(), settings))

    assert done.exit_code == 6, done.stderr
    run = world.only_run()
    assert run.status == "failed"
    # On a busy machine the time may be over before the step begins.
    assert run.statuses in ({"wait": "failed"}, {})
    assert run.id in done.stderr
    assert "Run timed out after 12 s." in done.stderr
    # Said by the supervisor, whose deadline comes a little before that of Modal.
    assert "modalrun: The run took longer than its timeout of 12 s" in done.stderr
    (sandbox,) = world.sandboxes()
    assert (sandbox.timeout_secs, sandbox.exitcode) == (12, 124)


@pytest.mark.exhaustive
def test_a_sandbox_that_is_stopped_with_the_modal_cli_stops_the_run(world: World) -> None:
    command = world.popen(waiting_spec(world.gate()))
    pids(world, command)
    (sandbox,) = world.sandboxes()

    stopped = world.modal("container", "stop", "--yes", sandbox.task_id)

    assert stopped.exit_code == 0, stopped.stderr
    assert_settled(world, command.finish(), 7)
    (sandbox,) = world.sandboxes()
    assert (sandbox.status, sandbox.exitcode) == (3, 137)


@pytest.mark.parametrize("retry", ["", pytest.param(RETRY, marks=pytest.mark.exhaustive)])
def test_a_runner_that_is_killed_leaves_nothing_running(world: World, retry: str) -> None:
    command = world.popen(waiting_spec(world.gate(), retry))
    os.kill(pids(world, command).runner, signal.SIGKILL)

    # A step may have done it.
    done = command.finish()
    assert_settled(world, done, 1)
    assert "SIGKILL" in done.stderr
    run = world.only_run()
    assert run.status == "failed"
    assert retry or "SIGKILL" in run.steps[0].exception


def test_a_termination_ends_the_run(world: World) -> None:
    command = world.popen(waiting_spec(world.gate()))
    os.kill(pids(world, command).supervisor, signal.SIGTERM)

    assert_settled(world, command.finish(), 7)
    (sandbox,) = world.sandboxes()
    assert sandbox.exitcode == 143


@pytest.mark.exhaustive
def test_a_termination_is_no_reason_for_a_retry(world: World) -> None:
    command = world.popen(waiting_spec(world.gate(), RETRY))
    os.kill(pids(world, command).supervisor, signal.SIGTERM)

    done = command.finish()
    assert done.stdout.count("waiting in") == 1
    assert [step.version for step in world.only_run().steps] == [1]
    assert_settled(world, done, 7)


@pytest.mark.exhaustive
def test_a_segmentation_fault_fails_the_run(world: World) -> None:
    done = world.submit("pipeline: crashing.crashing\ntarget: local\n")

    assert done.exit_code == 1
    run = world.only_run()
    assert run.status == "failed"
    assert run.statuses == {"crash": "failed"}
    assert "SIGSEGV" in run.steps[0].exception
    assert "about to crash" in done.stdout
    assert "SIGSEGV" in done.stderr
    assert re.search(r"^Run failed: crash\.$", done.stderr, re.M)


def test_a_server_that_is_killed_takes_the_run_with_it(world: World) -> None:
    command = world.popen(waiting_spec(world.gate()))
    pids(world, command)
    (server,) = (p for p, c in world.processes().items() if "modalrun.localmodal" in c)

    os.kill(server, signal.SIGKILL)

    done = command.finish(150)
    assert done.exit_code != 0
    run = world.only_run()
    assert run.status in {"failed", "stopped"}
    assert run.statuses == {"wait": run.status}
    assert run.id in done.stderr
    assert "its sandbox was killed with the local Modal server." in done.stderr, done.stderr
    assert "per_step" not in done.stderr


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.exhaustive),
    ],
)
def test_an_interrupted_import_creates_nothing(world: World, number: int, exit_code: int) -> None:
    gate = world.gate()
    command = world.popen("pipeline: slow_to_import.slow\ntarget: local\n", IMPORT_GATE=str(gate))
    with gate.path.open("wb"):
        # Both sides have the pipe open: the import is under way, and stays so.
        command.signal(number)
        done = command.finish()

    assert done.exit_code == exit_code, done.stderr
    assert (world.runs(), world.sandboxes()) == ([], [])
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_the_sandbox_is_created_leaves_no_run_that_only_looks_alive(
    world: World,
) -> None:
    gate = world.gate()
    command = world.popen(waiting_spec(gate), "--on-interrupt", "detach")
    command.stderr.wait_for("  id ")
    world.wait_until(world.apps, "the app was created, which comes before the sandbox")

    command.signal(signal.SIGINT)

    done = command.finish(40)
    assert done.exit_code == 130, done.stderr
    run = world.only_run()
    running = [sandbox for sandbox in world.sandboxes() if not sandbox.finished_at]
    if "continues" in done.stderr:
        # Too late: the sandbox was there, so this was a detachment.
        assert len(running) == 1
        gate.open()
        world.wait_until(lambda: world.only_run().status == "completed", "the run completed")
    else:
        assert run.status == "stopped"
        assert running == []
