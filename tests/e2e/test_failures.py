"""Steps that raise: failure modes, retries and hooks are ZenML's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

BRANCHES = "pipeline: branches.branches\ntarget: local\n"


def test_a_failing_step_fails_the_run_but_not_the_branch_beside_it(world: World) -> None:
    done = world.submit(BRANCHES)

    assert done.exit_code == 1
    run = world.only_run()
    assert run.status == "failed"
    assert run.statuses == {
        "start": "completed",
        "broken": "failed",
        "first": "completed",
        "second": "completed",
        "third": "completed",
    }
    assert "the other branch ends with 3" in done.stdout
    (broken,) = (step for step in run.steps if step.name == "broken")
    assert "broken on purpose, 1" in broken.exception

    log = done.stdout + done.stderr
    assert "Traceback (most recent call last)" in log
    assert re.search(r"branches\.py\", line \d+, in broken", log), log
    assert "ValueError: broken on purpose, 1" in log
    assert re.search(r"^broken +failed", done.stderr, re.M)
    assert re.search(r"^Run failed: broken\.$", done.stderr, re.M)
    assert run.id in done.stderr

    (sandbox,) = world.sandboxes()
    assert sandbox.exitcode == 1


@pytest.mark.parametrize(
    "mode", [pytest.param("stop_on_failure", marks=pytest.mark.exhaustive), "fail_fast"]
)
def test_nothing_starts_after_a_failure_in_the_other_modes(world: World, mode: str) -> None:
    done = world.submit(f"{BRANCHES}execution_mode: {mode}\n")

    assert done.exit_code == 1
    run = world.only_run()
    assert run.status == "failed"
    assert run.statuses["broken"] == "failed"
    assert "third" not in run.statuses and "after_broken" not in run.statuses
    (broken,) = (step for step in run.steps if step.name == "broken")
    assert broken.end is not None
    assert [step.name for step in run.steps if step.start > broken.end] == []
    assert "the other branch ends" not in done.stdout


@pytest.mark.parametrize(
    ("mode", "execution"),
    [
        ("pipeline", "fail_fast"),
        pytest.param("per_step", "stop_on_failure", marks=pytest.mark.exhaustive),
    ],
)
def test_nothing_runs_between_a_failure_and_the_end_of_its_hook(
    world: World, mode: str, execution: str
) -> None:
    of_failure, of_hook, of_step = map(world.gate, ("of_failure", "of_hook", "of_step"))
    command = world.popen(
        f"pipeline: failing_hooks.beside\ntarget: local\nexecution_mode: {execution}\n"
        f"parameters: {{of_failure: {of_failure}, of_hook: {of_hook}, of_step: {of_step}}}\n"
        f"settings: {{orchestrator: {{mode: {mode}, max_parallelism: 2}}}}"
    )
    command.stdout.wait_for("at of_step")
    of_failure.open()
    command.stdout.wait_for("at of_hook")
    of_step.open()
    command.stderr.wait_for("Step `after` is not run: another step failed.")
    of_hook.open()

    done = command.finish()
    assert done.exit_code == 1, done.stderr
    assert "Run failed: fails.\n" in done.stderr
    assert re.search(r"^after +not run", done.stderr, re.M), done.stderr
    assert world.only_run().statuses == {"fails": "failed", "waits": "completed"}


def test_retries_and_hooks(world: World) -> None:
    diary = world.root / "diary"
    diary.touch()

    done = world.submit(
        f"""
        pipeline: attempts.attempts
        target: local
        parameters:
          diary: {diary}
        init_hook_source: attempts.on_init
        init_hook_kwargs:
          diary: {diary}
        """
    )

    assert done.exit_code == 1
    run = world.only_run()
    assert [(step.name, step.status, step.version) for step in run.steps] == [
        ("flaky", "retried", 1),
        ("flaky", "completed", 2),
        ("good", "completed", 1),
        ("bad", "retried", 1),
        ("bad", "failed", 2),
    ]
    lines = diary.read_text().splitlines()
    # The hook of a failure is called for the last attempt alone, as by ZenML's local orchestrator.
    assert lines == [
        "init",
        "flaky runs",
        "flaky runs",
        "good runs with 2",
        "hook: good succeeded",
        "bad runs with 2",
        "bad runs with 2",
        "hook: bad failed with bad luck",
    ]
    assert done.stdout.count("cleanup was called") == 1
    # What is printed outside of steps is stored with the run.
    assert world.zenml(
        "from zenml.client import Client\n"
        f"run = Client().get_pipeline_run({run.id!r})\n"
        "result = [logs.source for logs in run.log_collection]"
    ) == ["orchestrator"]
    if world.place is None:
        stored = [path.read_text() for path in world.zenml_config.rglob("*.log")]
        (of_run,) = [text for text in stored if "cleanup was called" in text]
        assert "flaky" not in of_run
    assert re.search(r"^flaky +completed", done.stderr, re.M)
    assert re.search(r"^bad +failed", done.stderr, re.M)


@pytest.mark.parametrize(
    "mode", ["per_step", pytest.param("pipeline", marks=pytest.mark.exhaustive)]
)
def test_a_module_that_fails_in_the_sandbox_is_told_with_its_line(world: World, mode: str) -> None:
    done = world.submit("pipeline: late.late\ntarget: local\n", "--mode", mode)

    assert done.exit_code == 1, done.stderr
    reason = "work: ModuleNotFoundError: No module named 'no_such_package' (late.py:8)\n"
    assert f"  {reason}" in done.stderr
    run = world.only_run()
    assert f"  {reason}" in world.modalrun("status", run.id, HOME=str(world.home)).finish().stdout
    assert "No module named 'no_such_package'" in run.steps[-1].exception
