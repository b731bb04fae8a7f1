"""`modalrun rerun`: a new run takes what has succeeded in an earlier one, and runs the rest."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.commands import Result
    from tests.world import Run, World

pytestmark = pytest.mark.e2e

MODES = ["pipeline", pytest.param("per_step", marks=pytest.mark.exhaustive)]

LINKS = """
from zenml.client import Client
def links(run):
    ours = {k: v for k, v in run.run_metadata.items() if k.startswith("modalrun_rerun")}
    return [run.original_run and run.original_run.id, ours, [tag.name for tag in run.tags]]
result = [links(Client().get_pipeline_run(one)) for one in RUNS]
"""


def spec(world: World, pipeline: str = "diamond", mode: str = "pipeline") -> str:
    """A run spec of a pipeline that fails until the file exists."""
    return f"""
pipeline: rerunning.{pipeline}
target: local
parameters: {{file: {world.root / "file"}}}
settings: {{orchestrator: {{mode: {mode}, timeout: 300}}}}
"""


def rerun(world: World, *arguments: str, cwd: Path | None = None) -> Result:
    """Rerun the newest run in the folder of its files."""
    command = [sys.executable, "-m", "modalrun", "rerun", "latest", *arguments]
    return world.start(command, cwd=cwd or world.project).finish()


def plan(world: World, *arguments: str) -> list[str]:
    """Return what a rerun would skip and run."""
    done = rerun(world, "--plan", *arguments)
    assert done.exit_code == 0, done.stderr
    before, *lines, source = done.stdout.splitlines()
    assert before.startswith(f"Rerun of {world.runs()[-1].name} (")
    assert re.match(r"source: \d+ files", source)
    return [line.strip() for line in lines]


def ran(done: Result) -> list[str]:
    """Return the steps that have printed that they run."""
    return sorted(line.partition(" |")[0] for line in done.stdout.splitlines() if " runs" in line)


def links(world: World, *runs: Run) -> Any:
    """Return original run, metadata and tags of runs."""
    return world.zenml(f"RUNS = {json.dumps([run.id for run in runs])}\n{LINKS}")


@pytest.mark.parametrize("mode", MODES)
def test_after_a_failure_in_the_middle(world: World, mode: str) -> None:
    failed = world.submit(spec(world, mode=mode))
    assert failed.exit_code == 1, failed.stderr
    first = world.only_run()
    assert first.statuses == {"load": "completed", "left": "failed", "right": "completed"}
    assert f"  rerun   modalrun rerun {first.id}" in failed.stderr
    (world.root / "file").touch()
    assert plan(world) == [
        "skipped  load, right (2 with the results of that run)",
        "runs     left (failed), join (not run before)",
    ]
    for more in ((), ("--plan",), ("--new-code",)):
        wrong = rerun(world, *more, cwd=world.elsewhere)
        assert wrong.exit_code == 2, wrong.stderr
        told = " ".join(wrong.stderr.split())
        assert "Run the command in the folder of what was submitted, or name that" in told
        assert "source_root" not in told, told
    assert len(world.runs()) == 1

    done = rerun(world)

    assert done.exit_code == 0, done.stderr
    second = world.runs()[1]
    assert second.status == "completed"
    taken = {"load": "skipped", "right": "skipped"}
    assert second.statuses == taken | {"left": "completed", "join": "completed"}
    assert ran(done) == ["join", "left"]
    assert "join runs with 6 and 14" in done.stdout
    for name in taken:
        assert f"\n{name:<5}  skipped" in done.stderr
    tag = f"modalrun-rerun-{first.id}"
    assert links(world, first, second) == [
        [None, {"modalrun_rerun_by": second.id}, [tag]],
        [first.id, {"modalrun_rerun_of": first.id}, [tag]],
    ]
    shown = world.modalrun("status", first.id).finish()
    assert f"  rerun by  {second.id}" in shown.stdout, shown.stderr
    assert f"  rerun     modalrun rerun {first.id}" in shown.stdout
    assert f"  rerun of  {first.id}" in world.modalrun("status", second.id).finish().stdout
    resume = world.modalrun("resume", first.id, "--source-root", str(world.project)).finish()
    assert f"'modalrun rerun {first.id}'" in resume.stderr

    # All of it has succeeded.
    again = rerun(world)
    assert again.exit_code == 2
    assert "Every step of the run" in again.stderr
    assert "--from STEP" in again.stderr
    # A rerun of a rerun, which skips what was skipped.
    later = rerun(world, "--from", "left")
    assert later.exit_code == 0, later.stderr
    assert ran(later) == ["join", "left"]
    third = world.runs()[2]
    assert third.statuses == second.statuses
    (_, _, tags) = links(world, third)[0]
    assert tags == [tag]


def test_what_has_changed_runs_again(world: World) -> None:
    (world.root / "file").touch()
    first = world.submit(spec(world), "--name", "fixed")
    assert first.exit_code == 0, first.stderr

    misspelt = rerun(world, "--from", "rigt")
    assert misspelt.exit_code == 4
    assert "Did you mean 'right'?" in misspelt.stderr
    everything = "load (its parameter 'count' has changed), left (after load), right (after load)"
    assert plan(world, "--param", "count=5")[1] == f"runs     {everything}, join (after left)"
    changed = rerun(world, "--param", "file=/", "--async")
    assert changed.exit_code == 0, changed.stderr
    assert "left (its parameter 'file' has changed), join (after left)" in changed.stderr
    world.wait_until(lambda: world.runs()[1].status == "completed", "the rerun ends")
    second = world.runs()[1]
    # The first run's name is taken.
    assert second.name.startswith("fixed-20")
    assert changed.stdout == f"{second.id}\n"
    assert second.statuses["right"] == "skipped"
    assert second.statuses["left"] == "completed"

    # The rerun was compiled from the files as they were.
    module = world.project / "rerunning.py"
    module.write_text(module.read_text().replace('print("right runs")', 'print("right runs!")'))
    refused = rerun(world, "--from", "join")
    assert refused.exit_code == 2
    assert "rerunning.py (changed)" in refused.stderr
    assert "runs     " not in refused.stderr
    assert "--new-code" in refused.stderr
    assert len(world.runs()) == 2
    assert rerun(world, "--from", "join", "--plan").exit_code == 2
    new = rerun(world, "--new-code")
    assert new.exit_code == 0, new.stderr
    assert "right (its code has changed), join (after right)" in new.stderr
    assert ran(new) == ["join", "right"]
    assert world.runs()[2].statuses["left"] == "skipped"


@pytest.mark.exhaustive
def test_what_was_deleted_runs_again(world: World) -> None:
    (world.root / "file").touch()
    first = world.submit(spec(world))
    assert first.exit_code == 0, first.stderr
    if world.place is None:
        stores = world.zenml_config / "local_stores"
        shutil.rmtree(next(stores.glob("*/right/squares")))
    else:
        pytest.skip("the artifact store is elsewhere")
    assert plan(world)[1] == "runs     right (its result 'squares' was deleted), join (after right)"


@pytest.mark.exhaustive
def test_names_with_placeholders(world: World) -> None:
    failed = world.submit(f"{spec(world, 'placeholders')}run_name: nightly-{{who}}-{{date}}\n")
    assert failed.exit_code == 1, failed.stderr
    (world.root / "file").touch()
    skipped, runs = plan(world)
    assert skipped == "skipped  named (1 with the results of that run)"
    assert re.fullmatch(
        r"runs     left \(failed\),"
        r" timed \(its result 'at_[0-9_]+' has another name in a new run\),"
        r" join \(not run before\)",
        runs,
    )
    for more in (("--plan",), (), ("--new-code",)):
        refused = rerun(world, "--name", "x-{whom}", *more)
        assert refused.exit_code == 2, refused.stderr
        assert "--name: 'run_name': 'x-{whom}' has the placeholder '{whom}'" in refused.stderr

    done = rerun(world)

    assert done.exit_code == 0, done.stderr
    assert ran(done) == ["join", "left", "timed"]
    first, second = world.runs()
    assert first.name.startswith("nightly-me-2") and second.name.startswith(f"{first.name}-")


@pytest.mark.exhaustive
def test_a_run_that_is_not_over_is_refused(world: World) -> None:
    gate = world.gate()
    command = world.popen(
        f"pipeline: waiting.waiting\ntarget: local\nparameters: {{gate: {gate}}}\n"
    )
    world.wait_until(lambda: world.runs() and world.only_run().status == "running", "it runs")
    refused = rerun(world)
    assert refused.exit_code == 2
    assert "is not over: it is 'running'" in refused.stderr
    assert f"modalrun stop {world.only_run().id}" in refused.stderr
    gate.open()
    assert command.finish().exit_code == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_dynamic_pipeline(world: World, mode: str) -> None:
    failed = world.submit(spec(world, "growing", mode))
    assert failed.exit_code == 1, failed.stderr
    inline = "The mode 'pipeline' does not support running steps in isolated runtimes."
    assert (inline in failed.stdout) is (mode == "pipeline"), "ZenML's own message"
    (world.root / "file").touch()

    done = rerun(world)

    assert done.exit_code == 0, done.stderr
    assert "skipped  load, square, square_2 (3 with the results of that run)" in done.stderr
    assert "left (failed), and what else the pipeline's function calls" in done.stderr
    assert ran(done) == ["join", "left"]
    assert world.runs()[1].statuses == {
        **dict.fromkeys(("load", "square", "square_2"), "skipped"),
        **dict.fromkeys(("left", "join"), "completed"),
    }
    for name in ("load", "square"):
        assert f"\n{name:<8}  skipped" in done.stderr, done.stderr
    # Nobody knows what the function does with the numbers.
    assert plan(world, "--from", "load") == [
        "skipped  no step",
        "runs     load (--from), square (after load), square_2 (after square), left (after load),"
        " join (after square_2), and what else the pipeline's function calls",
    ]
    refused = rerun(world, "--param", "count=3")
    assert refused.exit_code == 2
    assert "which of its steps depend on its parameters is not known" in refused.stderr
