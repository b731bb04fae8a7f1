"""What is printed can be read: whole lines, one word for one state, the logs of any run."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_endings import waiting_spec

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e


def test_unfinished_lines_of_a_step_are_ended_before_others(world: World) -> None:
    done = world.submit("pipeline: unfinished.unfinished\ntarget: local\n")
    assert done.exit_code == 1
    assert "leaves | half a line\n" in done.stdout
    assert "leaves | half an error\nleaves | Traceback" in done.stderr


def test_a_step_that_has_not_begun_is_waiting_until_the_run_is_over(world: World) -> None:
    gate = world.gate()
    submitting = world.popen(waiting_spec(gate))
    submitting.stdout.wait_for("waiting in")
    shown = world.modalrun("status", world.only_run().id).finish().stdout
    assert re.search(r"^afterwards +waiting$", shown, re.M), shown
    world.modalrun("stop", world.only_run().id, "--force").finish()
    submitting.finish()
    shown = world.modalrun("status", world.only_run().id).finish().stdout
    assert re.search(r"^afterwards +not run$", shown, re.M), shown


def test_the_logs_of_a_run_that_another_orchestrator_ran(world: World) -> None:
    # ZenML's own orchestrator, which runs it in the process of the script.
    world.start([sys.executable, "-m", "unfinished"], cwd=world.project).finish()
    (run,) = world.runs()

    done = world.modalrun("logs", run.id, "--step", "leaves").finish()

    assert done.exit_code == 0, done.stderr
    assert "leaves | half a line" in done.stdout
    told = "modalrun did not start the run; these are the logs that ZenML has stored"
    assert told in done.stderr
