"""Runs with a sandbox for each step: which sandboxes there are, and what their ends mean."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from modalrun.run.metadata import STEP_KEY

if TYPE_CHECKING:
    from tests.world import Command, Gate, World

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]

FACTS = f"""
from zenml.client import Client
run = Client().list_pipeline_runs(size=1).items[0]
steps = Client().get_pipeline_run(run.id).steps
result = {{name: step.run_metadata["{STEP_KEY}"] for name, step in steps.items()}}
"""


def per_step(pipeline: str, more: str = "", **parameters: object) -> str:
    values = {n: str(v) if isinstance(v, os.PathLike) else v for n, v in parameters.items()}
    return f"""
pipeline: {pipeline}
target: local
parameters: {json.dumps(values)}
settings: {{orchestrator: {{mode: per_step{", " if more else ""}{more}}}}}
"""


def boxes(world: World, step: str | None = None) -> list[Any]:
    """The step sandboxes, oldest first."""
    found = [b for b in world.sandboxes() if b.tags["modalrun-role"] == "step"]
    return [b for b in found if step in {None, b.tags["modalrun-step"]}]


def most_at_once(sandboxes: list[Any]) -> int:
    moments = [(b.created_at, 1) for b in sandboxes] + [(b.finished_at, -1) for b in sandboxes]
    running, most = 0, 0
    for _, change in sorted(moments):
        running += change
        most = max(most, running)
    return most


def assert_all_over(world: World) -> None:
    assert [b.id for b in world.sandboxes() if not b.finished_at] == []


def test_each_step_has_its_own_machine(world: World) -> None:
    done = world.submit(ROOT / "configs" / "per_step_mixed.yaml")

    assert done.exit_code == 0, done.stderr
    run = world.only_run()
    assert run.status == "completed"
    assert set(run.statuses.values()) == {"completed"}
    found = {b.tags["modalrun-step"]: b for b in boxes(world)}
    assert {name: (b.gpu, b.milli_cpu, b.memory_mb) for name, b in found.items()} == {
        "preprocess_data": ("", 2000, 3815),
        "train_model": ("A100", 500, 30518),
        "evaluate_model": ("T4", 500, 15259),
    }
    assert {b.tags["modalrun-run"] for b in found.values()} == {run.id}
    assert all(re.fullmatch(rf"modalrun-{run.id}-[0-9a-f]{{8}}-1", b.name) for b in found.values())
    # Only the driver may create sandboxes.
    assert not [b.id for b in found.values() if "MODAL_TOKEN_ID" in b.variables]
    (driver,) = (b for b in world.sandboxes() if b.tags["modalrun-role"] == "run")
    assert (driver.gpu, driver.exitcode) == ("", 0)
    facts = world.zenml(FACTS)
    assert facts["train_model"]["gpu"] == "A100"
    assert facts["train_model"]["sandbox_id"] == found["train_model"].id
    assert_all_over(world)


# All ten times: pytest -m exhaustive tests/e2e/test_per_step.py -k fan_of_fifty
@pytest.mark.exhaustive
@pytest.mark.timeout(600)
@pytest.mark.parametrize("time", range(10))
def test_a_fan_of_fifty_ten_times(world: World, time: int) -> None:
    test_a_fan_runs_every_step_once(world, 50, None)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("count", "limit"), [(6, 2)])
def test_a_fan_runs_every_step_once(world: World, count: int, limit: int | None) -> None:
    diary = world.root / "diary"
    more = f"max_parallelism: {limit}" if limit else ""
    command = world.popen(per_step("fan.fan", more, count=count, diary=diary))

    done = command.finish(600)

    assert done.exit_code == 0, done.stderr
    assert world.only_run().status == "completed"
    lines = diary.read_text().splitlines()
    assert sorted(lines[:-1]) == sorted(str(number) for number in range(count))
    assert lines[-1] == "end"
    assert len(boxes(world)) == count + 2
    assert most_at_once(boxes(world)) <= (limit or count)
    assert_all_over(world)


def test_failures_and_the_users_retries(world: World) -> None:
    diary = world.root / "diary"
    diary.touch()
    done = world.popen(per_step("attempts.attempts", diary=diary)).finish(300)

    assert done.exit_code == 1, done.stderr
    run = world.only_run()
    assert run.status == "failed"
    assert run.statuses == {"flaky": "completed", "good": "completed", "bad": "failed"}
    assert [len(boxes(world, name)) for name in ("flaky", "good", "bad")] == [2, 1, 2]
    assert diary.read_text().splitlines().count("flaky runs") == 2
    assert "bad luck" in run.steps[-1].exception
    assert "Run failed: bad." in done.stderr
    assert_all_over(world)


@pytest.mark.parametrize(
    ("mode", "third"),
    [
        pytest.param("continue_on_failure", "completed", marks=pytest.mark.exhaustive),
        pytest.param("fail_fast", None, marks=pytest.mark.exhaustive),
        pytest.param("stop_on_failure", None, marks=pytest.mark.exhaustive),
    ],
)
def test_failure_modes(world: World, mode: str, third: str | None) -> None:
    spec = per_step("branches.branches") + f"execution_mode: {mode}\n"
    done = world.popen(spec).finish(300)

    assert done.exit_code == 1, done.stderr
    run = world.only_run()
    assert run.status == "failed"
    assert run.statuses["broken"] == "failed"
    assert run.statuses.get("third") == third
    assert "after_broken" not in run.statuses
    assert boxes(world, "after_broken") == []
    assert_all_over(world)


def waiting(world: World, more: str = "", pipeline: str = "waiting") -> tuple[Command, Gate]:
    # Its database has to be there before anybody looks into it.
    world.server()
    gate = world.gate()
    command = world.popen(per_step(f"waiting.{pipeline}", more, gate=str(gate)))
    world.wait_until(lambda: boxes(world, "wait"), "the step sandbox was created")
    return command, gate


# The submission creates one that is kept warm, and the driver doesn't know when.
WARM = pytest.param("keep_warm: 30", marks=pytest.mark.exhaustive)


@pytest.mark.parametrize("more", ["", WARM])
def test_a_step_sandbox_that_is_lost_costs_no_retry(world: World, more: str) -> None:
    command, gate = waiting(world, more)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    (lost,) = boxes(world, "wait")

    terminate(world, lost.id)

    world.wait_until(lambda: len(boxes(world, "wait")) == 2, "it was started again")
    gate.open()
    done = command.finish(300)
    assert done.exit_code == 0, done.stderr
    run = world.only_run()
    assert [(s.name, s.status, s.version) for s in run.steps] == [
        ("wait", "completed", 1),
        ("afterwards", "completed", 1),
    ]
    again = "It is started again (1 of 2), without using up a retry."
    said = f"wait | modalrun: The sandbox was terminated from outside. {again}"
    assert done.stderr.count(again) == 1 and said in done.stderr.splitlines()
    timeline = world.modalrun("status", run.id, "--timeline").finish().stdout
    assert re.search(r"^wait +completed +[wsi]*l+[si]*R+$", timeline, re.M), timeline
    assert_all_over(world)


@pytest.mark.exhaustive
def test_the_timeout_of_the_run_is_the_reason_everywhere(world: World) -> None:
    # A start of the sandbox that takes half of it, 13 s once on a busy machine, is not counted.
    command, _ = waiting(world, "timeout: 60")

    done = command.finish(300)

    assert done.exit_code == 6, done.stderr
    run = world.only_run()
    assert run.statuses == {"wait": "failed"}
    why = "the run took longer than its timeout of 60 s."
    unwound = f"T{why[1:]} (waiting.py:13)"
    # On a busy machine the two seconds that it has to unwind and to record may be over before.
    ends = (unwound, f"It was ended early: {why}", f"T{why[1:]}")
    told = next(end for end in ends if f"Step `wait` failed: {end}" in done.stderr)
    assert "from outside" not in done.stderr
    exception = run.steps[0].exception
    assert f"T{why[1:]}" in exception
    assert ("line 13, in wait" if told is unwound else "") in exception
    facts = world.zenml(FACTS)["wait"]
    assert facts["exit_reason"] == told
    assert_all_over(world)


@pytest.mark.exhaustive
@pytest.mark.timeout(400)
def test_the_timeout_of_a_dynamic_run_names_the_line_of_an_isolated_step(world: World) -> None:
    # Long enough for the step to begin and to unwind on a busy machine, too.
    command, _ = waiting(world, "timeout: 90", "waiting_isolated")

    done = command.finish(300)

    assert done.exit_code == 6, done.stderr
    run = world.only_run()
    assert (run.status, run.statuses) == ("failed", {"wait": "failed"})
    why = "The run took longer than its timeout of 90 s."
    assert f"  wait: {why} (waiting.py:13)" in done.stderr.splitlines()
    assert why in run.steps[0].exception and "line 13, in wait" in run.steps[0].exception
    assert_all_over(world)


@pytest.mark.exhaustive
def test_the_timeout_of_a_dynamic_run_is_the_reason_of_an_inline_step(world: World) -> None:
    gate = world.gate()

    done = world.submit(per_step("waiting.waiting_inline", "timeout: 60", gate=str(gate)))

    assert done.exit_code == 6, done.stderr
    why = "TimeoutError: The run took longer than its timeout of 60 s. (waiting.py:13)"
    assert f"  wait: {why}" in done.stderr.splitlines()
    assert "signal_handler" not in done.stdout + done.stderr
    assert_all_over(world)


def terminate(world: World, sandbox: str) -> None:
    code = f"import modal; modal.Sandbox.from_id('{sandbox}').terminate()"
    done = world.start([sys.executable, "-c", code], **world.server()).finish()
    assert done.exit_code == 0, done.stderr
