"""The ending rule for dynamic runs: what user code does is a failed attempt, and no more.

The ways to end and their reasons are those of static runs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_ends import PROCESS, REASONS, reason

if TYPE_CHECKING:
    from tests.world import Run, World

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

WAYS = [way for way in REASONS if way != "never"]
LONG = 800


def finished(world: World, spec: str, *arguments: str, waits: bool, code: int) -> Run:
    """Submit a run, and return it after its end."""
    done = world.popen(spec, *arguments, *([] if waits else ["--async"])).finish(LONG)
    assert done.exit_code == (code if waits else 0), done.stderr
    world.wait_until(
        lambda: (boxes := world.sandboxes()) and all(box.finished_at for box in boxes),
        "all is over",
        LONG,
    )
    return world.only_run()


@pytest.mark.parametrize(
    ("mode", "retries", "waits", "ways"),
    [
        ("pipeline", 1, False, ["exits", "leaves_0"]),
        *(
            pytest.param(mode, retries, waits, WAYS, marks=pytest.mark.exhaustive)
            for mode, retries, waits in [
                ("pipeline", 0, True),
                ("pipeline", 1, False),
                ("per_step", 0, False),
                ("per_step", 1, True),
            ]
        ),
    ],
)
def test_an_inline_step_that_ends_in_any_way_has_failed(
    world: World, mode: str, retries: int, waits: bool, ways: list[str]
) -> None:
    spec = f"""
pipeline: dynamic_ends.steps
target: local
execution_mode: continue_on_failure
parameters: {{ways: {json.dumps(ways)}, retries: {retries}}}
"""
    run = finished(world, spec, "--mode", mode, waits=waits, code=0)

    assert run.statuses == dict.fromkeys(ways, "failed") | {
        "first": "completed",
        "last": "completed",
    }
    for way in ways:
        attempts = [step for step in run.steps if step.name == way]
        assert [step.version for step in attempts] == list(range(1, retries + 2)), way
        for step in attempts:
            assert reason(step.exception).startswith(REASONS[way]), (way, step.exception)
    # What had succeeded has not run again.
    assert [step.version for step in run.steps if step.name == "first"] == [1]


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", ["pipeline", "per_step"])
@pytest.mark.parametrize("way", ["exits_well", "unprintable", "leaves_0", "sigterm", "sigkill"])
def test_a_function_that_ends_in_any_way_has_failed(world: World, mode: str, way: str) -> None:
    spec = f"pipeline: dynamic_ends.function\ntarget: local\nparameters: {{way: {way}}}\n"

    run = finished(world, spec, "--mode", mode, waits=True, code=1)

    assert (run.status, run.statuses) == ("failed", {"first": "completed"})
    said = REASONS[way].removeprefix(PROCESS)
    assert said in run.reason, run.reason


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", ["raises", "calls", "isolated", "loads", "settles", "translates"])
def test_a_traceback_has_no_line_of_the_engine(world: World, way: str) -> None:
    spec = f"pipeline: tracing.function\ntarget: local\nparameters: {{way: {way}}}\n"

    done = world.submit(spec, "--mode", "per_step")

    assert done.exit_code == 1, done.stderr
    assert 'File "tracing.py"' in done.stderr
    assert "zenml/" not in done.stderr.partition("Traceback")[2].partition("\nstep ")[0]


@pytest.mark.exhaustive
def test_the_step_beside_one_that_ends_the_process_runs_again(world: World) -> None:
    """It is not known which of the two has ended it, so they run again one by one."""
    diary = world.root / "diary"
    spec = f"pipeline: dynamic_ends.together\ntarget: local\nparameters: {{diary: {diary}}}\n"

    run = finished(world, spec, waits=True, code=0)

    assert run.statuses == {"once": "completed", "beside": "completed"}
    assert [step.version for step in run.steps] == [1, 1]


@pytest.mark.exhaustive
def test_an_isolated_step_beside_the_function_is_tried_again(world: World) -> None:
    diary = world.root / "diary"
    spec = f"pipeline: dynamic_ends.apart\ntarget: local\nparameters: {{diary: {diary}}}\n"

    run = finished(world, spec, "--mode", "per_step", waits=True, code=0)

    assert [(step.version, step.status) for step in run.steps] == [(1, "retried"), (2, "completed")]


@pytest.mark.exhaustive
def test_the_step_beside_one_that_always_ends_the_process_has_not_failed(world: World) -> None:
    """The function raises the failure before that step has run again."""
    spec = "pipeline: dynamic_ends.killed\ntarget: local\n"
    done = world.popen(f"{spec}parameters: {{mark: {world.root / 'mark'}}}\n").finish(LONG)

    assert done.exit_code == 1, done.stderr
    run = world.only_run()
    assert (run.status, run.statuses) == ("failed", {"kills": "failed", "waits": "stopped"})
    reasons = {step.name: reason(step.exception) for step in run.steps}
    assert reasons["kills"] == REASONS["sigkill"]
    early = "The run failed before the step had ended: Step `kills` failed"
    assert reasons["waits"] == f"{early}: {REASONS['sigkill']}"
    assert "Run failed: kills.\n" in done.stderr
    assert done.stderr.count("the local Modal server sets no limit of memory") == 1
    # The function's own traceback has no label.
    assert "\nTraceback" in done.stderr + done.stdout


def test_a_variable_of_an_inline_step_is_its_own(world: World) -> None:
    spec = "pipeline: dynamic_ends.variables\ntarget: local\n"

    done = world.submit(spec)

    assert done.exit_code == 0, done.stdout + done.stderr
    assert "MINE is secret" in done.stdout
