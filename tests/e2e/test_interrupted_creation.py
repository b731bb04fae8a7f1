"""Signals and lost answers while a run is created: it never goes on, or seems to, unknown."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.test_dynamic import ANSWER
from tests.e2e.test_endings import waiting_spec
from tests.e2e.test_flavor import register, script
from tests.e2e.test_per_step import waiting

if TYPE_CHECKING:
    from tests.world import Command, World

pytestmark = pytest.mark.e2e

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
PER_STEP = "settings: {orchestrator: {mode: per_step}}"
EVERY = pytest.mark.exhaustive
LONG = 300


def faults(world: World, *rules: dict[str, Any]) -> None:
    """Let calls to this world's server fail from now on."""
    world.server()
    (world.state / "faults.json").write_text(json.dumps(rules))


def signalled_at(world: World, command: Command, rpc: str, *signals: int) -> None:
    """Send the signals when the server does not answer a call."""
    log = world.state / "server.log"
    world.wait_until(lambda: f"a scripted fault: {rpc}" in log.read_text(), f"{rpc} is called")
    for number in signals:
        command.signal(number)


def assert_cancelled(world: World) -> None:
    """The run is recorded as stopped, nothing of it runs, and every command says so."""
    run = world.only_run()
    assert (run.status, run.reason) == ("stopped", "The submission was interrupted.")
    assert all(box.finished_at for box in world.sandboxes())
    status = world.modalrun("status", run.id, "--exit-status").finish()
    assert (status.exit_code, "stopped" in status.stdout) == (7, True), status.stdout
    listed = world.modalrun("list", "--state", "stopped").finish()
    assert run.id[:8] in listed.stdout, listed.stdout
    settled = world.modalrun("reconcile", run.id).finish()
    assert settled.exit_code == 0, settled.stderr


@pytest.mark.parametrize(
    ("rpc", "signals", "settings"),
    [
        ("SandboxCreate*", (INT, TERM), ""),
        pytest.param("SandboxCreate*", (HUP,), PER_STEP, marks=EVERY),
        pytest.param("SandboxCreate*", (TERM, TERM, INT), PER_STEP, marks=EVERY),
        pytest.param("AppGetOrCreate", (HUP, HUP), "", marks=EVERY),
        pytest.param("MountGetOrCreate", (INT, INT), "", marks=EVERY),
        pytest.param("ImageGetOrCreate", (TERM,), "", marks=EVERY),
    ],
)
@pytest.mark.parametrize("waits", [(), pytest.param(("--async",), marks=EVERY)])
def test_a_signal_while_a_run_is_created_cancels_it(
    world: World, rpc: str, signals: tuple[int, ...], settings: str, waits: tuple[str, ...]
) -> None:
    faults(world, {"rpc": rpc, "action": "hang"})
    command = world.popen(waiting_spec(world.gate(), settings), *waits)

    signalled_at(world, command, rpc.rstrip("*"), *signals)

    done = command.finish()
    assert done.exit_code in {128 + number for number in signals}, done.stderr
    assert "nothing of it is running" in done.stderr
    assert "Traceback" not in done.stderr
    assert_cancelled(world)


@EVERY
@pytest.mark.parametrize("number", [INT, TERM, HUP])
@pytest.mark.parametrize("waits", ["sync", "async"])
def test_a_signal_while_a_script_creates_a_run_cancels_it(
    world: World, number: int, waits: str
) -> None:
    register(world)
    faults(world, {"rpc": "SandboxCreate*", "action": "hang"})
    command = script(world, "flavored.py", "pipeline", str(world.gate()), waits)

    signalled_at(world, command, "SandboxCreate", number, number)

    done = command.finish()
    assert done.exit_code == -number, done.stderr
    assert_cancelled(world)


def test_a_sandbox_whose_creation_was_not_answered_is_found(world: World) -> None:
    gate = world.gate()
    faults(
        world,
        {"rpc": "SandboxCreate*", "action": "lose_answer", "times": None},
        {"rpc": "SandboxGetFromName*", "action": "error", "status": "INTERNAL", "times": 3},
    )
    command = world.popen(waiting_spec(gate))
    command.stdout.wait_for("waiting in")
    gate.open()
    done = command.finish()
    assert done.exit_code == 0, done.stderr
    assert len(world.sandboxes()) == 1


@EVERY
@pytest.mark.parametrize("settings", ["", PER_STEP])
def test_a_run_whose_creation_was_never_answered_is_found_later(
    world: World, settings: str
) -> None:
    gate = world.gate()
    faults(
        world,
        {"rpc": "SandboxCreate*", "action": "lose_answer", "times": None},
        {"rpc": "SandboxGetFromName*", "action": "error", "times": None},
    )
    done = world.submit(waiting_spec(gate, settings))
    assert done.exit_code == 9, done.stderr
    run = world.only_run()
    assert f"modalrun status {run.id}" in done.stderr
    assert run.status != "failed"

    faults(world)
    status = world.modalrun("status", run.id).finish()
    assert status.exit_code == 0
    assert world.sandboxes()[0].id in status.stdout, status.stdout
    settled = world.modalrun("reconcile", run.id).finish()
    assert "its sandbox runs: the record is right" in settled.stderr, settled.stderr
    stopped = world.modalrun("stop", "--force", run.id).finish()
    assert stopped.exit_code == 0, stopped.stderr
    assert world.only_run().status == "stopped"
    assert all(box.finished_at for box in world.sandboxes())


def test_a_submission_killed_before_it_records_the_sandbox(world: World) -> None:
    faults(
        world,
        {"rpc": "SandboxCreate*", "action": "lose_answer"},
        {"rpc": "SandboxGetFromName*", "action": "hang"},
    )
    command = world.popen(waiting_spec(world.gate()))
    world.wait_until(world.sandboxes, "the sandbox exists")
    command.signal(signal.SIGKILL)
    command.finish()
    faults(world)

    run_id, (sandbox,) = world.only_run().id, world.sandboxes()
    status = world.modalrun("status", run_id).finish()
    assert (status.exit_code, sandbox.id in status.stdout) == (0, True), status.stdout
    listed = world.modalrun("list").finish()
    assert run_id[:8] in listed.stdout, listed.stdout
    settled = world.modalrun("reconcile", "--force", run_id).finish()
    assert "its sandbox runs: the record is right" in settled.stderr, settled.stderr
    stopped = world.modalrun("stop", "--force", run_id).finish()
    assert (stopped.exit_code, "no sandbox yet" in stopped.stderr) == (0, False), stopped.stderr
    assert world.only_run().status == "stopped"
    assert all(box.finished_at for box in world.sandboxes())
    # 'stop' has recorded the sandbox, and so what has its lines.
    status = world.modalrun("status", run_id).finish()
    assert (sandbox.id in status.stdout, "  rerun  " in status.stdout) == (True, True), status
    logs = world.modalrun("logs", run_id, "--driver").finish()
    assert (logs.exit_code, "no sandbox" in logs.stderr) == (0, False), logs.stderr
    # Its files are on record.
    rerun = world.modalrun("rerun", run_id, "--plan", "--source-root", str(world.project)).finish()
    assert rerun.exit_code == 0, rerun.stderr


@EVERY
def test_a_run_whose_submission_was_killed_is_seen(world: World) -> None:
    faults(
        world,
        {"rpc": "SandboxCreate*", "action": "lose_answer"},
        {"rpc": "SandboxGetFromName*", "action": "hang"},
    )
    gate = world.gate()
    command = world.popen(waiting_spec(gate))
    world.wait_until(world.sandboxes, "the sandbox exists")
    command.signal(signal.SIGKILL)
    command.finish()
    faults(world)
    run_id, (sandbox,) = world.only_run().id, world.sandboxes()
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")

    inside = world.modalrun("exec", run_id, "--", "printenv", "MODAL_SANDBOX_ID").finish()
    assert inside.stdout.split() == [sandbox.id], inside.stderr
    following = world.modalrun("logs", "--follow", run_id[:8])
    following.stdout.wait_for("waiting in ")
    gate.open()
    assert following.finish(LONG).exit_code == 0

    world.wait_until(lambda: world.only_run().status == "completed", "the run completes")
    status = json.loads(world.modalrun("status", run_id, "--output", "json").finish().stdout)
    assert status["sandbox"]["id"] == sandbox.id, status
    logs = world.modalrun("logs", run_id).finish()
    assert "waiting in " in logs.stdout and "no sandbox" not in logs.stderr, logs.stderr


@EVERY
def test_a_run_whose_submission_was_killed_is_resumed(world: World) -> None:
    faults(
        world,
        {"rpc": "SandboxCreate*", "action": "lose_answer"},
        {"rpc": "SandboxGetFromName*", "action": "hang"},
    )
    gate = world.gate()
    command = world.popen(waiting_spec(gate, PER_STEP))
    world.wait_until(world.sandboxes, "the sandbox exists")
    command.signal(signal.SIGKILL)
    command.finish()
    faults(world)
    run_id = world.only_run().id
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    (driver,) = (box for box in world.sandboxes() if box.tags["modalrun-role"] == "run")
    assert world.modalrun("local", "kill", driver.id).finish().exit_code == 0

    resumed = world.modalrun(
        "resume", run_id, "--async", "--source-root", str(world.project)
    ).finish()

    assert resumed.exit_code == 0, resumed.stderr
    gate.open()
    world.wait_until(lambda: world.only_run().status == "completed", "the run completes")
    status = json.loads(world.modalrun("status", run_id, "--output", "json").finish().stdout)
    assert all(step["sandbox"] for step in status["steps"]), status


@EVERY
def test_a_submission_killed_as_soon_as_it_has_told_the_id(world: World) -> None:
    faults(world, {"rpc": "SandboxCreate*", "action": "hang"})
    command = world.popen(waiting_spec(world.gate()))
    command.stderr.wait_for("  id  ")
    command.signal(signal.SIGKILL)
    command.finish()
    faults(world)

    run_id = world.only_run().id
    status = world.modalrun("status", run_id).finish()
    assert f"'modalrun stop {run_id}' ends it" in " ".join(status.stdout.split()), status.stdout
    stopped = world.modalrun("stop", run_id).finish()
    assert stopped.exit_code == 0, stopped.stderr
    assert world.only_run().status == "stopped"
    assert all(box.finished_at for box in world.sandboxes())


@EVERY
def test_a_signal_while_a_run_is_resumed_leaves_it_as_it_was(world: World) -> None:
    command, gate = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    (driver,) = (box for box in world.sandboxes() if box.tags["modalrun-role"] == "run")
    assert world.modalrun("local", "kill", driver.id).finish().exit_code == 0
    assert command.finish(LONG).exit_code == 7
    run_id = world.only_run().id
    resume = [sys.executable, "-m", "modalrun", "resume", run_id]

    faults(world, {"rpc": "SandboxCreate*", "action": "hang"})
    interrupted = world.start(resume, cwd=world.project)
    signalled_at(world, interrupted, "SandboxCreate", TERM)

    done = interrupted.finish(LONG)
    assert done.exit_code == 143, done.stderr
    assert "Modal has not answered" in done.stderr and f"'modalrun resume {run_id}'" in done.stderr
    assert world.only_run().statuses == {"wait": "running"}

    faults(world, {"rpc": "ImageGetOrCreate", "action": "hang"})
    interrupted = world.start(resume, cwd=world.project)
    signalled_at(world, interrupted, "ImageGetOrCreate", INT)

    done = interrupted.finish(LONG)
    assert done.exit_code == 130, done.stderr
    assert f"The run {run_id} was not resumed: it is as it was." in done.stderr

    faults(world)
    gate.open()
    resumed = world.start(resume, cwd=world.project).finish(LONG)
    assert resumed.exit_code == 0, resumed.stderr
    assert world.only_run().status == "completed"


@EVERY
@pytest.mark.timeout(900)
def test_a_signal_while_a_paused_run_begins_to_continue_leaves_it_paused(world: World) -> None:
    gate = world.gate()
    spec = f"pipeline: growing.asking\ntarget: local\nparameters: {{gate: {gate}}}\n"
    asked = world.submit(spec)
    assert (asked.exit_code, world.only_run().status) == (0, "paused"), asked.stderr
    world.zenml(ANSWER)
    resume = [sys.executable, "-m", "modalrun", "resume", world.only_run().id]

    # The new sandbox runs, and whoever has asked for it does not hear of it. Three times before,
    # `resume` asks for the last sandbox.
    faults(
        world,
        {"rpc": "SandboxCreate*", "action": "lose_answer", "times": None},
        {"rpc": "SandboxGetFromNameV2", "action": "hang", "skip": 3},
    )
    interrupted = world.start(resume, cwd=world.project)
    world.wait_until(lambda: world.only_run().statuses == {"hold": "running"}, "it continues")
    for number in (INT, TERM):
        interrupted.signal(number)

    done = interrupted.finish(LONG)
    run = world.only_run()
    assert done.exit_code in {130, 143}, done.stderr
    assert f"The run {run.id} was not resumed: it is as it was." in done.stderr
    assert run.status == "paused"
    assert all(box.finished_at for box in world.sandboxes())

    faults(world)
    command = world.start(resume, cwd=world.project)
    gate.open()
    resumed = command.finish(LONG)
    assert resumed.exit_code == 0, resumed.stderr
    assert world.only_run().status == "completed"
