"""A rerun on a ZenML server, and the end of a step's process that is recorded there."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e


@pytest.mark.exhaustive
def test_a_rerun_takes_what_has_succeeded(world: World) -> None:
    file = world.root / "file"
    spec = "pipeline: rerunning.diamond\ntarget: local\n"
    spec += f"parameters: {{file: {file}}}\n"
    failed = world.submit(spec)
    assert failed.exit_code == 1, failed.stderr
    first = world.only_run()
    assert first.statuses == {"load": "completed", "left": "failed", "right": "completed"}
    file.touch()
    command = [sys.executable, "-m", "modalrun", "rerun", "latest"]

    planned = world.start([*command, "--plan"], cwd=world.project).finish()
    done = world.start(command, cwd=world.project).finish()

    assert "skipped  load, right (2 with the results of that run)" in planned.stdout, planned.stderr
    assert done.exit_code == 0, done.stderr
    second = world.runs()[1]
    taken = {"load": "skipped", "right": "skipped"}
    assert second.statuses == taken | {"left": "completed", "join": "completed"}
    assert "join runs with 6 and 14" in done.stdout
    shown = world.modalrun("status", first.id).finish().stdout
    assert f"  rerun by  {second.id}" in shown
    compiled = world.start([*command, "--new-code", "--plan"], cwd=world.project).finish()
    assert (compiled.exit_code, "Every step of the run" in compiled.stderr) == (2, True)


def test_a_step_that_is_killed_is_recorded_without_zenml(world: World) -> None:
    spec = "pipeline: blamed.steps.blamed\ntarget: local\nparameters: {how: be killed}\n"

    done = world.submit(spec, "--mode", "per_step")

    assert done.exit_code == 1
    run = world.only_run()
    told = json.loads(world.modalrun("status", run.id, "--output", "json").finish().stdout)
    (step,) = told["steps"]
    assert step["exit_reason"] == "The step's process was killed (SIGKILL)."
    assert (step["exit_code"], step["failure"]["lines"][-1]) == (137, "about to be killed")
