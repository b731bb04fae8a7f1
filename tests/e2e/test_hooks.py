"""A hook of a pipeline that ends its process is named, with its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

EVERY = pytest.mark.exhaustive
ENDS = {"exits": "SystemExit: 3", "leaves": "ended with exit code 5"}
KINDS = [
    ("static", "pipeline"),
    pytest.param("static", "per_step", marks=EVERY),
    pytest.param("dynamic", "pipeline", marks=EVERY),
]
WAYS = [pytest.param("exits", marks=EVERY), "leaves"]


@pytest.mark.parametrize(("kind", "mode"), KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_an_init_hook_that_ends_its_process(world: World, kind: str, mode: str, way: str) -> None:
    spec = f"pipeline: hooks.{kind}\ntarget: local\ninit_hook_source: hooks.{way}\n"

    done = world.submit(spec, "--mode", mode)

    assert done.exit_code == 1, done.stderr
    said = done.stderr[done.stderr.index("Run failed") :]
    assert "init hook" in said, done.stderr
    assert ENDS[way] in said, done.stderr


@pytest.mark.parametrize(("kind", "mode"), KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_cleanup_hook_that_ends_its_process(world: World, kind: str, mode: str, way: str) -> None:
    spec = f"pipeline: hooks.{kind}\ntarget: local\ncleanup_hook_source: hooks.{way}\n"

    done = world.submit(spec, "--mode", mode)

    # In a step sandbox ZenML calls it before it records the end of the step.
    fails = (mode, way) == ("per_step", "leaves")
    assert done.exit_code == int(fails), done.stderr
    assert world.only_run().statuses == {"fine": "failed" if fails else "completed"}
    said = [line for line in done.stderr.splitlines() if "cleanup hook" in line.lower()]
    assert any(ENDS[way] in line for line in said), done.stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", ["pipeline", "per_step"])
def test_a_hook_that_ends_its_process_after_a_failure_hides_no_reason(
    world: World, mode: str
) -> None:
    spec = "pipeline: hooks.failing\ntarget: local\nexecution_mode: continue_on_failure\n"

    done = world.submit(spec, "--mode", mode)

    assert done.exit_code == 1, done.stderr
    run = world.only_run()
    assert run.statuses == dict.fromkeys(["exits", "leaves", "leaves_twice"], "failed")
    assert [step.version for step in run.steps if step.name == "leaves_twice"] == [1, 2]
    for way in run.statuses:
        assert f"  {way}: ValueError: bad luck (hooks.py:" in done.stderr, done.stderr
    assert "failed: ValueError: bad luck (hooks.py:" in run.reason


def test_a_function_gets_what_its_step_raised_and_not_how_the_hook_ended(world: World) -> None:
    done = world.submit("pipeline: hooks.dynamic_failing\ntarget: local\n")

    assert done.exit_code == 0, done.stderr
    run = world.only_run()
    assert run.statuses == dict.fromkeys(["exits", "leaves", "leaves_twice"], "failed")
    assert [step.version for step in run.steps if step.name == "leaves_twice"] == [1, 2]
    for way in run.statuses:
        assert f"the function got bad luck of {way}\n" in done.stdout
