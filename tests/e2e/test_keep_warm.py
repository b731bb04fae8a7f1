"""Step sandboxes that are kept warm for the next step: `keep_warm`."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.e2e.test_per_step import assert_all_over, boxes, per_step, terminate

if TYPE_CHECKING:
    from tests.world import Command, Gate, World

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="steps are forked on Linux"),
]

LONG = 300
WARM = "keep_warm: 60"
OTHER = "steps: {wait: {settings: {resources: {cpu_count: 0.75}}}}\n"
"""Makes the sandbox of one step another kind than those of the others."""


def gated(world: World, more: str = "") -> tuple[Command, Gate]:
    """Start a run whose second step waits at a gate."""
    gate = world.gate()
    command = world.popen(per_step("warm.gated", WARM, gate=str(gate)) + more)
    command.stdout.wait_for("waiting", LONG)
    return command, gate


def modalrun(world: World, *arguments: str) -> str:
    done = world.start([sys.executable, "-m", "modalrun", *arguments], cwd=world.project).finish(
        LONG
    )
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_steps_share_a_sandbox_and_nothing_of_their_own(world: World) -> None:
    diary = world.root / "diary"
    diary.mkdir()
    done = world.popen(per_step("warm.traces", WARM, count=3, diary=diary)).finish(LONG)

    assert done.exit_code == 0, done.stderr
    (box,) = boxes(world)
    assert box.tags["modalrun-served"] == "3"
    for number in range(3):
        lines = re.findall(rf"^leave_{number} \| (.*)$", done.stdout, re.MULTILINE)
        assert len([line for line in lines if re.search(r" has \[\]$", line)]) == 2, lines
        assert "environment None source True" in lines
        assert any(line.startswith("no line feed") for line in lines)
        assert lines.count("stray 0 runs: False") == (1 if number else 0)
    places = re.findall(r"(?:working|temporary) (\S+) has", done.stdout)
    assert len(set(places)) == 6, places
    assert not [place for place in places if os.path.lexists(place)]

    run = world.only_run()
    shown = modalrun(world, "status", run.id)
    assert shown.count(f"{box.id} (3 steps)") == 3, shown
    logs = modalrun(world, "logs", run.id, "--step", "leave_1")
    assert "stray 0 runs: False" in logs
    assert "stray 1 runs" not in logs and "leave_2" not in logs
    assert_all_over(world)


@pytest.mark.exhaustive
def test_a_users_module_may_be_named_like_one_of_modalruns(world: World) -> None:
    done = world.popen(per_step("process.passes", WARM)).finish(LONG)

    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("a note from the first in a run of 1\n") == 2
    (box,) = boxes(world)
    assert box.tags["modalrun-served"] == "4"
    of_steps = f"step_run_id IS NOT NULL AND {world.records.mine('logs')}"
    logs = world.records.rows(f"SELECT source FROM logs WHERE {of_steps}")
    assert [source for (source,) in logs] == ["step"] * 4


def test_a_step_ends_its_process_and_not_the_sandbox(world: World) -> None:
    ways = ["leaves_0", "leaves_137", "sigsegv", "group"]
    more = f"{WARM}, max_parallelism: 1"
    done = world.popen(per_step("ends.ends", more, ways=ways)).finish(LONG)

    assert done.exit_code == 1, done.stderr
    statuses = world.only_run().statuses
    assert [statuses[way] for way in [*ways, "never"]] == ["failed"] * 5
    assert statuses["last"] == "completed"
    assert len(boxes(world)) == 1
    said = " ".join(done.stderr.split())
    assert "The step's process died of SIGSEGV." in said
    assert_all_over(world)


@pytest.mark.parametrize("way", ["time", pytest.param("stopped", marks=pytest.mark.exhaustive)])
def test_a_time_limit_is_the_steps_own(world: World, way: str) -> None:
    """Also of one that has stopped the process that would end it."""
    limit = "steps: {hang: {settings: {orchestrator: {timeout: 4}}}}\n"
    more = f"{WARM}, max_parallelism: 1"
    done = world.popen(per_step("warm.exceeding", more, way=way) + limit).finish(LONG)

    assert done.exit_code == 1, done.stderr
    assert world.only_run().statuses == {"hang": "failed", "after": "completed"}
    assert "The step took longer than its timeout" in done.stderr
    assert len(boxes(world)) == 1
    assert_all_over(world)


def test_sandboxes_wait_for_what_is_expected(world: World) -> None:
    """Kill one that waits, and one in a step; neither is the step's fault."""
    command, gate = gated(world, OTHER)
    (idle,) = boxes(world, "first")
    assert not idle.finished_at
    (busy,) = boxes(world, "wait")
    terminate(world, idle.id)
    terminate(world, busy.id)
    command.stderr.wait_for("It is started again (1 of 2), without using up a retry.", LONG)
    world.wait_until(lambda: command.stdout.text.count("waiting") == 2, "it waits again")
    gate.open()
    done = command.finish(LONG)
    assert done.exit_code == 0, done.stderr
    assert re.search(
        r"idle +\d+\.\d s in sandboxes that were kept warm, (below )?\$0\.\d+", done.stderr
    )
    run = world.only_run()
    timeline = world.modalrun("status", run.id, "--timeline").finish().stdout
    assert re.search(r"^wait +completed +[wsi]*l+[si]*R+$", timeline, re.M), timeline
    assert sorted((step.name, step.status, step.version) for step in run.steps) == [
        ("first", "completed", 1),
        ("last", "completed", 1),
        ("wait", "completed", 1),
    ]
    assert [len(boxes(world, name)) for name in ("first", "wait", "last")] == [1, 2, 1]
    assert_all_over(world)


def test_another_driver_adopts_a_step(world: World) -> None:
    command, gate = gated(world)
    run = world.only_run()
    (box,) = boxes(world)
    assert box.tags["modalrun-step"] == "wait"
    (driver,) = (b for b in world.sandboxes() if b.tags["modalrun-role"] == "run")
    modalrun(world, "local", "kill", driver.id)
    assert command.finish(LONG).exit_code == 7
    resume = world.start([sys.executable, "-m", "modalrun", "resume", run.id], cwd=world.project)
    resume.stderr.wait_for("another driver takes over", LONG)
    gate.open()
    done = resume.finish(LONG)
    assert done.exit_code == 0, done.stderr
    steps = world.only_run().steps
    assert sorted((step.name, step.status, step.version) for step in steps) == [
        ("first", "completed", 1),
        ("last", "completed", 1),
        ("wait", "completed", 1),
    ]
    assert modalrun(world, "logs", run.id, "--step", "wait").count("waiting") == 1
    assert_all_over(world)


@pytest.mark.exhaustive
@pytest.mark.parametrize("force", [False, True])
def test_a_stop_ends_the_sandboxes(world: World, force: bool) -> None:
    command, gate = gated(world, OTHER)
    run_id = world.only_run().id
    stop = world.start(
        [sys.executable, "-m", "modalrun", "stop", run_id, *(["--force"] if force else [])]
    )
    world.wait_until(lambda: boxes(world, "first")[0].finished_at, "nothing is expected any more")
    if not force:
        gate.open()
    assert stop.finish(LONG).exit_code == 0
    assert command.finish(LONG).exit_code == 7
    status = "stopped" if force else "completed"
    assert world.only_run().statuses == {"first": "completed", "wait": status}
    assert_all_over(world)


@pytest.mark.exhaustive
@pytest.mark.parametrize("gpu", ["", ", gpu: T4"])
def test_connections_that_are_lost(world: World, gpu: str) -> None:
    """No order is lost or carried out twice, and no end is missed."""
    world.server()
    rules = [
        {"rpc": rpc, "action": action, "times": 2, **more}
        for rpc, action, more in (
            ("SandboxStdinWriteV2", "lose_answer", {}),
            ("SandboxStdinWrite", "lose_answer", {}),
            ("SandboxTagsSetV2", "error", {}),
            ("SandboxStdioReadV2", "disconnect", {"messages": 1}),
            ("SandboxGetLogs", "disconnect", {"messages": 1}),
        )
    ]
    (world.state / "faults.json").write_text(json.dumps(rules))
    done = world.submit(per_step("warm.saying", WARM + gpu), "--async")
    assert done.exit_code == 0, done.stderr
    world.wait_until(lambda: world.only_run().status == "completed", "the run is over", LONG)
    (box,) = boxes(world)
    printed = (world.state / "logs" / box.id / "stdout").read_text()
    log = (world.state / "server.log").read_text()
    met = (
        ("SandboxStdinWrite", "SandboxGetLogs")
        if gpu
        else (
            "SandboxStdinWriteV2",
            "SandboxStdioReadV2",
        )
    )
    for rpc in met:
        assert f"a scripted fault: {rpc}: " in log
    assert re.findall(r"it says (\w) with", printed) == ["a", "b", "c"]
    world.wait_until(lambda: all(b.finished_at for b in world.sandboxes()), "all have ended")


@pytest.mark.exhaustive
def test_a_fan_uses_as_many_sandboxes_as_steps_may_run(world: World) -> None:
    diary = world.root / "diary"
    more = f"{WARM}, max_parallelism: 2"
    done = world.popen(per_step("fan.fan", more, count=6, diary=diary)).finish(LONG)
    assert done.exit_code == 0, done.stderr
    assert len(boxes(world)) == 2
    assert sum(int(box.tags["modalrun-served"]) for box in boxes(world)) == 8
    assert_all_over(world)


@pytest.mark.exhaustive
def test_other_secrets_are_in_another_sandbox(world: World) -> None:
    code = "import modal; modal.Secret.objects.create('{0}', {{'TOKEN_{0}': 'hidden'}})"
    for name in ("ours", "theirs"):
        made = world.start([sys.executable, "-c", code.format(name)], **world.server()).finish()
        assert made.exit_code == 0, made.stderr
    steps = {
        name: f"settings: {{orchestrator: {{secrets: [{secret}]}}}}"
        for name, secret in (("a", "ours"), ("b", "theirs"), ("c", "ours"))
    }
    more = "".join(f"  {name}: {{{text}}}\n" for name, text in steps.items())
    done = world.popen(f"{per_step('warm.saying', WARM)}steps:\n{more}").finish(LONG)
    assert done.exit_code == 0, done.stderr
    for name, secret in (("a", "ours"), ("b", "theirs"), ("c", "ours")):
        assert f"it says {name} with ['TOKEN_{secret}']" in done.stdout
    assert [len(boxes(world, name)) for name in ("a", "b", "c")] == [0, 1, 1]
    assert_all_over(world)


@pytest.mark.exhaustive
def test_a_sandbox_that_runs_out_of_memory_ends_with_its_step(world: World) -> None:
    world.server()
    fault = {"role": "step", "end": "out-of-memory"}
    (world.state / "faults.json").write_text(json.dumps({"sandboxes": [fault]}))
    command, _ = gated(world)
    processes = world.processes().items()
    forks = {
        pid for pid, line in processes if line.startswith("python3 -m modalrun.driver.step_worker")
    }
    (first,) = (pid for pid in forks if psutil.Process(pid).ppid() not in forks)
    os.kill(first, signal.SIGKILL)
    done = command.finish(LONG)
    assert done.exit_code == 1, done.stderr
    assert "The sandbox ran out of memory" in done.stderr
    assert world.only_run().statuses == {"first": "completed", "wait": "failed"}
    assert len(boxes(world)) == 1
    assert_all_over(world)


@pytest.mark.exhaustive
def test_sandboxes_with_a_gpu(world: World) -> None:
    """Modal's other backend."""
    diary = world.root / "diary"
    diary.mkdir()
    spec = per_step("warm.traces", f"{WARM}, gpu: T4", count=2, diary=diary)
    done = world.popen(spec).finish(LONG)
    assert done.exit_code == 0, done.stderr
    (box,) = boxes(world)
    assert (box.gpu, box.tags["modalrun-served"]) == ("T4", "2")
    assert_all_over(world)


@pytest.mark.exhaustive
def test_the_drivers_process_dies_between_two_steps(world: World) -> None:
    command, gate = gated(world)
    (pid,) = (
        pid
        for pid, line in world.processes().items()
        if "modalrun.driver.per_step" in line and "supervisor" not in line
    )
    os.kill(pid, signal.SIGKILL)
    command.stderr.wait_for("This driver takes over; running step sandboxes: 1.", LONG)
    gate.open()
    done = command.finish(LONG)
    assert done.exit_code == 0, done.stderr
    assert {step.version for step in world.only_run().steps} == {1}
    assert_all_over(world)


def test_isolated_steps_of_a_dynamic_pipeline_share_a_sandbox(world: World) -> None:
    done = world.popen(per_step("warm.decided", WARM, count=3)).finish(LONG)
    assert done.exit_code == 0, done.stderr
    (box,) = boxes(world)
    assert box.tags["modalrun-served"] == "3"
    assert re.findall(r"^(\S+) \| squaring (\d+)$", done.stdout, re.MULTILINE) == [
        ("square", "2"),
        ("square_2", "4"),
        ("square_3", "16"),
    ]
    assert_all_over(world)


@pytest.mark.exhaustive
def test_a_step_whose_files_cannot_be_created_says_so(world: World) -> None:
    settings = f"{WARM}, infrastructure_retries: 0"

    done = world.popen(per_step("warm.unprepared", settings)).finish(LONG)

    assert done.exit_code == 1, done.stderr
    run = world.only_run()
    assert run.statuses == {"spoil": "completed", "after": "failed"}
    assert "Step `after` failed: The files of the step could not be created" in run.reason
    assert "The step can't start: `" in run.steps[-1].exception
