"""`modalrun exec`: commands in the sandboxes of running steps."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_endings import waiting_spec

if TYPE_CHECKING:
    from tests.world import Gate, World

pytestmark = pytest.mark.e2e

EXEC = [sys.executable, "-m", "modalrun", "exec"]
SECRET = re.compile("^(MODAL_TOKEN|MODALRUN_(EVENT_KEY|BROKER|ORDER|CONTROL))", re.M)

OF_RUN = "environment: {OF_RUN: hello}"
VARIABLES = f"{OF_RUN}\nsteps: {{wait: {{environment: {{OF_STEP: 007}}}}}}"


def submitted(world: World, spec: str, *arguments: str) -> str:
    """Submit a run whose first step waits; return its id."""
    done = world.submit(spec, "--async", *arguments)
    assert done.exit_code == 0, done.stderr
    world.wait_until(lambda: "running" in world.only_run().statuses.values(), "a step runs")
    return done.stdout.strip()


def completed(world: World, gate: Gate) -> None:
    """Let the run go on to its end."""
    gate.open()
    world.wait_until(lambda: world.only_run().status == "completed", "the run completes")


def test_a_command_and_a_shell_run_beside_a_step(world: World) -> None:
    gate = world.gate()
    run_id = submitted(world, waiting_spec(gate, VARIABLES))

    script = 'printf "a\\377"; cat >&2; pwd; env; exit 7'
    piped = f"printf \"in\\n\" | {' '.join(EXEC)} {run_id} -- sh -c '{script}'"
    done = world.start(["sh", "-c", piped]).finish()

    assert done.exit_code == 7, done.stderr
    assert done.stdout.startswith("a\\xff")
    assert done.stderr.endswith("in\n")
    assert f"MODALRUN_RUN_ID={run_id}" in done.stdout
    assert {"OF_RUN=hello", "OF_STEP=007"} <= {*done.stdout.splitlines()}
    assert not SECRET.search(done.stdout)

    endless = f"{' '.join(EXEC)} {run_id} -- yes of-exec | head -n 1"
    assert world.start(["sh", "-c", endless]).finish().stdout == "of-exec\n"
    world.wait_until(
        lambda: not any("yes of-exec" in text for text in world.processes().values()),
        "what nobody reads any more ends",
    )

    shell = world.start([*EXEC, run_id[:8]], terminal=True)
    shell.type("stty size; echo $((6 * 7)) for $MODALRUN_RUN_ID\n")
    shell.stdout.wait_for(f"42 for {run_id}")
    assert "50 160" in shell.stdout.text
    shell.resize(20, 70)
    shell.type("until [ \"$(stty size)\" = '20 70' ]; do sleep 0.1; done; echo $((20 + 0)) by 70\n")
    shell.stdout.wait_for("20 by 70")
    # The signal is the command's, not modalrun's.
    shell.type("sh -c 'echo sleeping $((6 * 8)); exec sleep 1000'\n")
    shell.stdout.wait_for("sleeping 48")
    shell.type("\x03")
    shell.type("echo code $?\n")
    shell.stdout.wait_for("code 130")
    shell.type("exit 3\n")
    assert shell.finish().exit_code == 3

    failed = world.modalrun("exec", run_id, "--step", "afterwards").finish()
    assert failed.exit_code == 4
    assert "The step 'afterwards' has not begun." in failed.stderr
    assert "Running: wait." in failed.stderr
    open_shell = world.start([*EXEC, run_id], terminal=True)
    open_shell.type("echo open $((6 * 9))\n")
    open_shell.stdout.wait_for("open 54")
    completed(world, gate)
    killed = open_shell.finish()
    assert killed.exit_code == 137
    assert "The sandbox of the step 'wait' has ended." in killed.stdout + killed.stderr
    ended = world.modalrun("exec", run_id, "--", "true").finish()
    assert ended.exit_code == 4
    assert "has ended (completed)" in ended.stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize("pipeline", ["waiting", "waiting_inline"])
def test_a_step_of_a_per_step_run_shows_no_token(world: World, pipeline: str) -> None:
    gate = world.gate()
    variables = VARIABLES if pipeline == "waiting" else OF_RUN
    spec = waiting_spec(gate, variables).replace("waiting.waiting", f"waiting.{pipeline}")
    run_id = submitted(world, spec, "--mode", "per_step")

    done = world.modalrun("exec", run_id, "--", "env").finish()

    assert done.exit_code == 0, done.stderr
    assert ("MODALRUN_STEP=wait\n" in done.stdout) == (pipeline == "waiting")
    assert "OF_RUN=hello\n" in done.stdout
    assert ("OF_STEP=007\n" in done.stdout) == (pipeline == "waiting")
    assert not SECRET.search(done.stdout)
    completed(world, gate)


@pytest.mark.exhaustive
def test_a_signal_restores_the_terminal_and_ends_the_shell(world: World) -> None:
    gate = world.gate()
    run_id = submitted(world, waiting_spec(gate))
    script = f"{' '.join(EXEC)} {run_id}; echo code $?; stty -a"
    shell = world.start(["sh", "-c", script], terminal=True)
    shell.type("echo ready $((6 * 7))\n")
    shell.stdout.wait_for("ready 42")

    def pids(*commands: str) -> list[int]:
        found = world.processes().items()
        return [pid for pid, text in found if text.strip() in commands]

    assert pids("/bin/bash", "/bin/sh")

    os.kill(*pids(f"{' '.join(EXEC)} {run_id}"), signal.SIGTERM)

    shell.stdout.wait_for("code 143")
    assert " icanon" in shell.finish().stdout
    world.wait_until(lambda: not pids("/bin/bash", "/bin/sh"), "the shell in the sandbox ends")
    completed(world, gate)
