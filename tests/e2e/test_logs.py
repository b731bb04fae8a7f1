"""`modalrun logs`: the lines of a run, while it goes and after it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from modalrun.localmodal import launcher

if TYPE_CHECKING:
    from tests.world import Command, Result, World

pytestmark = pytest.mark.e2e


def start_logs(world: World, *arguments: str) -> Command:
    return world.start([sys.executable, "-m", "modalrun", "logs", *arguments])


def logs(world: World, *arguments: str) -> Result:
    done = start_logs(world, *arguments).finish()
    assert done.exit_code == 0, done.stderr
    return done


def lines(world: World, *arguments: str) -> list[dict[str, Any]]:
    done = logs(world, "--output", "jsonl", *arguments)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(line["version"] == 1 and line["kind"] == "line" for line in found)
    return found


def test_a_run_in_one_sandbox(world: World) -> None:
    gate = world.gate()
    spec = f"pipeline: waiting.waiting\ntarget: local\nparameters:\n  gate: {gate}\n"
    assert world.submit(spec, "--async").exit_code == 0
    run = world.only_run()

    # Leave, and come again by another name: nothing is missing and nothing comes twice.
    command = start_logs(world, "--follow", run.id)
    command.stdout.wait_for("wait | waiting in")
    command.signal(signal.SIGINT)
    left = command.finish()
    assert left.exit_code == 130
    assert f"modalrun logs --follow {run.id}" in left.stderr
    # No step has that name: it is not waited for.
    wrong = start_logs(world, "--follow", "--step", "afterwrds", run.id).finish()
    assert wrong.exit_code == 4
    assert "Did you mean 'afterwards'? Its steps: wait, afterwards." in wrong.stderr
    command = start_logs(world, "--follow", "--timestamps", run.name)
    command.stdout.wait_for("wait | waiting in")
    gate.open()
    done = command.finish()
    assert done.exit_code == 0, done.stderr

    assert done.stdout.count("| waiting in") == 1
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    for text in ("wait | the gate is open", "afterwards | afterwards: through"):
        assert len(re.findall(rf"^{stamp} {re.escape(text)}$", done.stdout, re.M)) == 1
    assert "\x1e" not in done.stdout and "\x1b" not in done.stdout

    # It is over now: the same from the history, and what part of it one likes.
    (sandbox,) = world.sandboxes()
    ended = lines(world, "latest", "--search", "gate")
    assert [(line["step"], line["source"], line["text"]) for line in ended] == [
        ("wait", "stdout", "the gate is open")
    ]
    assert ended[0]["sandbox"] == sandbox.id and ended[0]["time"].startswith("20")
    assert {line["step"] for line in lines(world, run.id[:8], "--step", "after*")} == {"afterwards"}
    assert len(lines(world, run.id, "--tail", "2", "--source", "stdout")) == 2

    # Modal has forgotten it: ZenML has not.
    launcher.stop(world.state)
    shutil.rmtree(world.state)
    old = logs(world, run.id)
    assert "wait | the gate is open\n" in old.stdout
    assert "afterwards | afterwards: through\n" in old.stdout
    assert "ZenML has stored" in old.stderr


@pytest.mark.exhaustive
def test_a_run_with_a_sandbox_for_each_step(world: World) -> None:
    spec = "pipeline: diamond.diamond\ntarget: local\n"
    assert world.submit(spec, "--async", "--mode", "per_step").exit_code == 0
    run = world.only_run()

    live = logs(world, "--follow", run.id).stdout

    for text in ("load | loaded 4 numbers", "load | load says this on stderr", "join | joined 10"):
        assert live.count(text) == 1, live
    assert "\x1e" not in live
    assert world.only_run().status == "completed"
    stored = lines(world, run.id)
    assert {line["step"] for line in stored} == set(run.statuses or world.only_run().statuses)
    boxes = {line["step"]: line["sandbox"] for line in stored}
    assert len(set(boxes.values())) == 4
    times = [line["time"] for line in stored]
    assert times == sorted(times)

    # Again, from the cache; and of a run that breaks, a step that never came to its turn.
    assert world.submit(spec).exit_code == 0
    for arguments in ((), ("--step", "load")):
        silent = start_logs(world, "latest", *arguments).finish()
        assert (silent.exit_code, silent.stdout) == (4, "")
        assert "all its steps are cached" in " ".join(silent.stderr.split())
    assert world.submit("pipeline: branches.branches\ntarget: local\n").exit_code == 1
    silent = start_logs(world, "latest", "--step", "after_broken").finish()
    assert (silent.exit_code, silent.stdout) == (4, "")
    assert "Step 'after_broken' has not run: `broken` did not succeed." in silent.stderr
