"""A step that spoils its process harms no other step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    "mode", ["pipeline", pytest.param("per_step", marks=pytest.mark.exhaustive)]
)
def test_a_step_that_spoils_its_process_harms_no_other(world: World, mode: str) -> None:
    spec = "pipeline: spoiling.spoiling\ntarget: local\nexecution_mode: continue_on_failure\n"

    done = world.submit(spec, "--mode", mode)

    statuses = dict(world.only_run().statuses)
    unloaded = statuses.pop("unloads")
    assert unloaded in {"failed", "completed"}
    assert statuses == dict.fromkeys(["forks", "uses", "closes", "prints", "last"], "completed"), (
        done.stderr
    )
    assert done.exit_code == (0 if unloaded == "completed" else 1)
    for line in ("uses | got parent", "prints | got still open", "last | got loaded"):
        assert line in done.stdout
    assert "got child" not in done.stdout


def test_a_process_that_an_inline_step_forks_does_not_go_on_with_the_run(world: World) -> None:
    done = world.submit("pipeline: spoiling.dynamic_forking\ntarget: local\n")

    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("the function goes on with parent\n") == 1
    assert "child" not in done.stdout
    assert world.only_run().statuses == {"forks": "completed"}


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_long_chain_of_spoilers_ends(world: World, workers: int) -> None:
    """Each of them fails or not, but soon, and no other step notices."""
    settings = f"settings: {{orchestrator: {{max_parallelism: {workers}}}}}"
    spec = f"""
pipeline: spoiling.chain
target: local
execution_mode: continue_on_failure
{settings}
"""
    command = world.popen(spec)

    done = command.finish(300)

    statuses = world.only_run().statuses
    fine = {name: status for name, status in statuses.items() if name.endswith("_fine")}
    assert set(fine.values()) == {"completed"}, done.stdout + done.stderr
    assert done.stdout.count("got after ") == len(fine) == len(statuses) / 2
    assert set(statuses.values()) <= {"completed", "failed"}


SPOILERS = ("deletes_its_folder", "closes_descriptors", "closes_streams", "replaces_streams")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "mode", ["pipeline", pytest.param("per_step", marks=pytest.mark.exhaustive)]
)
def test_a_step_that_spoils_its_process_and_fails_has_its_own_reason(
    world: World, mode: str
) -> None:
    spec = (
        "pipeline: spoiling_failures.static\ntarget: local\nexecution_mode: continue_on_failure\n"
    )

    done = world.submit(spec, "--mode", mode)

    assert done.exit_code == 1, done.stderr
    run = world.only_run()
    assert run.statuses == dict.fromkeys(SPOILERS, "failed")
    for way in SPOILERS:
        assert f"  {way}: KeyError: 'bad luck of {way}' (" in done.stderr, done.stderr
    assert "failed: KeyError: 'bad luck of " in run.reason


@pytest.mark.exhaustive
def test_a_dynamic_run_goes_on_after_an_inline_step_that_spoils_its_process(world: World) -> None:
    done = world.submit("pipeline: spoiling_failures.dynamic\ntarget: local\n")

    assert done.exit_code == 0, done.stdout + done.stderr
    run = world.only_run()
    for way in SPOILERS:
        assert [step.status for step in run.steps if step.name == way] == ["retried", "failed"]
        assert run.statuses[f"{way}_well"] == "completed"
        assert f"the function got 'bad luck of {way}'\n" in done.stdout
        assert f"the function goes on after {way}\n" in done.stdout
    assert run.statuses["redirected"] == "completed"
