"""Waiting for a place for a GPU sandbox: the next type, what is shown, and how the wait ends."""

from __future__ import annotations

import json
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.test_dynamic import SPEC as DYNAMIC
from tests.e2e.test_per_step import boxes, per_step

if TYPE_CHECKING:
    from tests.world import Command, World

pytestmark = pytest.mark.e2e

PLAIN = "pipeline: sandboxes.plain\ntarget: local\n"
AT_ONCE = 6.0
"""Seconds for the end of a wait, which would take for ever by itself."""

LONG = 300.0


def script(world: World, **keys: Any) -> None:
    world.server()
    (world.state / "faults.json").write_text(json.dumps(keys))


def waits(world: World, gpu: str) -> Any:
    """Wait until a sandbox has asked for a GPU; return it."""
    return world.wait_until(
        lambda: next((box for box in world.sandboxes() if box.gpu == gpu), None),
        f"a sandbox waits for {gpu}",
    )


def assert_nothing_left(world: World) -> None:
    assert all(box.finished_at for box in world.sandboxes())


def test_the_next_type_is_asked_for_after_its_time(world: World) -> None:
    script(world, scheduling={"H100": None, "L4": None})
    done = world.submit(PLAIN, "--gpu", "H100,L4,A100", "--set", "settings.orchestrator.gpu_wait=1")
    assert done.exit_code == 0, done.stderr
    assert "Modal has no H100 now (waited 1 s); asking for L4 instead" in done.stderr
    assert "Modal has no L4 now (waited 1 s); asking for A100 instead" in done.stderr
    first, second, third = world.sandboxes()
    assert [box.gpu for box in (first, second, third)] == ["H100", "L4", "A100"]
    assert first.finished_at <= second.created_at
    assert second.finished_at <= third.created_at
    assert not first.started_at
    assert_nothing_left(world)


def test_no_type_has_a_place(world: World) -> None:
    script(
        world,
        scheduling={"H100": None, "L4": None},
        rules=[
            {
                "rpc": "SandboxCreate",
                "action": "error",
                "status": "RESOURCE_EXHAUSTED",
                "message": "no capacity",
            }
        ],
    )
    gpus = ("--gpu", "A100,H100,L4", "--set", "settings.orchestrator.gpu_wait=1")
    done = world.submit(PLAIN, *gpus)
    assert done.exit_code == 5, done.stderr
    tried = "A100 (refused: no capacity), H100 (waited 1 s), L4 (waited 1 s)"
    assert f"Modal has no place for the sandbox: {tried}." in done.stderr
    assert world.only_run().status == "failed"
    assert_nothing_left(world)


def test_a_wait_is_told_and_ends_when_there_is_a_place(world: World) -> None:
    script(world, scheduling={"H100": None})
    command = world.popen(PLAIN, "--gpu", "H100,A100")
    command.stderr.wait_for("  Waiting for H100, next: A100")
    run = world.only_run()

    def told() -> bool:
        status = world.modalrun("status", run.id).finish()
        return "Its submission is waiting for H100, next: A100." in status.stdout

    world.wait_until(told, "status knows what is waited for")
    status = world.modalrun("status", run.id, "--output", "json").finish()
    assert json.loads(status.stdout)["sandbox"]["presence"] == "waiting"
    assert " s, waiting for a place\n" in world.modalrun("local", "status").finish().stdout
    logs = world.modalrun("logs", "--follow", run.id)
    logs.stderr.wait_for("has no sandbox yet: it is waiting for H100, next: A100.")
    script(world)
    done = command.finish()
    assert done.exit_code == 0, done.stderr
    followed = logs.finish()
    assert (followed.exit_code, "look | " in followed.stdout) == (0, True), followed.stderr
    (box,) = world.sandboxes()
    assert box.gpu == "H100"
    assert "waiting for" not in world.modalrun("status", run.id).finish().stdout


def ended_quickly(command: Command) -> Any:
    began = time.monotonic()
    done = command.finish()
    assert time.monotonic() - began < AT_ONCE, done.stderr
    return done


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive)]
)
def test_a_signal_ends_the_wait(world: World, number: int) -> None:
    script(world, scheduling={"H100": None})
    command = world.popen(PLAIN, "--gpu", "H100,A100")
    waits(world, "H100")
    command.signal(number)
    done = ended_quickly(command)
    assert done.exit_code == 128 + number, done.stderr
    assert "nothing of it is running" in done.stderr
    assert "Modal has not answered" not in done.stderr
    assert world.only_run().status == "stopped"
    (box,) = world.sandboxes()
    assert box.finished_at


def test_a_stop_from_elsewhere_ends_the_wait(world: World) -> None:
    script(world, scheduling={"H100": None})
    command = world.popen(PLAIN, "--gpu", "H100,A100")
    waits(world, "H100")
    stopped = world.modalrun("stop", world.only_run().id).finish()
    assert stopped.exit_code == 0, stopped.stderr
    done = ended_quickly(command)
    assert done.exit_code == 7, done.stderr
    assert world.only_run().status == "stopped"
    (box,) = world.sandboxes()
    assert box.finished_at


def test_capacity_is_asked_for_again(world: World) -> None:
    rule = {"rpc": "SandboxCreateV2", "action": "error", "status": "RESOURCE_EXHAUSTED", "times": 3}
    script(world, rules=[rule])
    done = world.submit(PLAIN, "--wait-for-capacity", "1m")
    assert done.exit_code == 0, done.stderr
    assert "Modal has no room for this: a scripted fault; asking again" in done.stderr


def test_the_time_for_capacity_ends(world: World) -> None:
    script(world, scheduling={"H100": None})
    done = world.submit(PLAIN, "--gpu", "H100", "--wait-for-capacity", "2")
    assert done.exit_code == 5, done.stderr
    assert "H100 (waited 2 s)" in done.stderr
    assert_nothing_left(world)


def waiting_steps(world: World, run_id: str) -> dict[str, str]:
    """Return what steps wait for by `status`, once it shows that any waits."""

    def found() -> dict[str, str]:
        shown = json.loads(world.modalrun("status", run_id, "--output", "json").finish().stdout)
        steps = [step for step in shown["steps"] if step["state"] == "starting"]
        return {step["name"]: step["exit_reason"] for step in steps}

    return world.wait_until(found, "status shows what a step waits for")


@pytest.mark.exhaustive
def test_the_reason_of_a_run_that_times_out_names_the_waits(world: World) -> None:
    script(world, scheduling={"H100": None})
    done = world.submit(per_step("diamond.diamond", "gpu: H100, timeout: 30", count=3))
    assert done.exit_code == 6, done.stderr
    reason = world.only_run().reason
    assert re.search(r"timeout of 30 s\. `load` waited \d+ s for H100\.", reason), reason
    assert_nothing_left(world)


def test_steps_wait_each_for_its_place(world: World) -> None:
    script(world, scheduling={"H100": None, "L4": None})
    gpus = "gpu: [H100, L4], gpu_wait: 8"
    command = world.popen(per_step("diamond.diamond", gpus, count=3))
    line = "modalrun: waiting for H100, next: L4"
    command.stderr.wait_for(f"load | {line}")
    run = world.only_run()
    logs = world.modalrun("logs", run.id, "--output", "jsonl").finish()
    assert line in logs.stdout, logs.stderr
    assert waiting_steps(world, run.id) == {"load": "waiting for H100, next: L4"}
    command.stderr.wait_for("asking for L4 instead")
    script(world)
    done = command.finish(LONG)
    assert done.exit_code == 0, done.stderr
    assert [box.gpu for box in boxes(world, "load")] == ["H100", "L4"]
    assert_nothing_left(world)


@pytest.mark.parametrize("force", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("dynamic", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_a_stop_while_a_step_waits(world: World, *, dynamic: bool, force: bool) -> None:
    script(world, scheduling={"H100": None, "T4": None})
    spec = DYNAMIC if dynamic else per_step("diamond.diamond", "gpu: H100", count=3)
    command = world.popen(spec, *(["--mode", "per_step"] if dynamic else []))
    waits(world, "T4" if dynamic else "H100")
    if force:
        what = "waiting for T4" if dynamic else "waiting for H100"
        assert set(waiting_steps(world, world.only_run().id).values()) == {what}
    stopped = world.modalrun("stop", world.only_run().id, *(["--force"] if force else []))
    assert stopped.finish(LONG).exit_code == 0, stopped.stderr
    done = command.finish(LONG)
    assert done.exit_code == 7, done.stderr
    assert world.only_run().status == "stopped"
    assert_nothing_left(world)
    assert not any(box.started_at for box in world.sandboxes() if box.gpu)


@pytest.mark.exhaustive
def test_an_interrupt_while_a_step_waits(world: World) -> None:
    script(world, scheduling={"H100": None})
    command = world.popen(per_step("diamond.diamond", "gpu: H100", count=3))
    waits(world, "H100")
    command.signal(signal.SIGINT)
    done = command.finish(LONG)
    assert done.exit_code == 130, done.stderr
    assert_nothing_left(world)
