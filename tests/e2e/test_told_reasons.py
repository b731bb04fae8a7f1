"""Why a step or a run has ended is told in the same words by every command, in every mode."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_endings import waiting_spec

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    "mode", [pytest.param("pipeline", marks=pytest.mark.exhaustive), "per_step"]
)
def test_a_step_that_waits_for_its_retry_says_why(world: World, mode: str) -> None:
    submitting = world.popen("pipeline: retrying.static\ntarget: local\n", "--mode", mode)
    why = "ValueError: bad luck (retrying.py:14)"
    line = f"modalrun: Step `fails` failed: {why}; retry 1 of 3 in 600 s."
    submitting.stderr.wait_for(line)
    run_id = world.only_run().id

    shown = world.modalrun("status", run_id).finish().stdout

    assert f"  fails: {why}\n" in shown, shown
    told = json.loads(world.modalrun("status", run_id, "--output", "json").finish().stdout)
    assert told["steps"][0]["exit_reason"] == why
    world.modalrun("stop", run_id).finish()
    assert submitting.finish().exit_code == 7
    # It keeps it when its retry does not come.
    assert f"  fails: {why}\n" in world.modalrun("status", run_id).finish().stdout
    told = json.loads(world.modalrun("status", run_id, "--output", "json").finish().stdout)
    assert (told["steps"][0]["state"], told["steps"][0]["exit_reason"]) == ("stopped", why)
    assert told["zenml"]["reason"] == "The run was asked to stop."


@pytest.mark.parametrize(
    "mode", ["pipeline", pytest.param("per_step", marks=pytest.mark.exhaustive)]
)
def test_list_names_the_failed_step_of_a_dynamic_run(world: World, mode: str) -> None:
    failed = world.submit("pipeline: telling.submitting\ntarget: local\n", "--mode", mode)
    assert failed.exit_code == 1, failed.stderr

    listed = world.modalrun("list").finish().stdout

    assert "  Step `fails` failed: KeyError: 'bad luck' (telling.py:14)\n" in listed, listed
    own = world.submit("pipeline: telling.raising\ntarget: local\n", "--mode", mode)
    assert own.exit_code == 1, own.stderr
    assert world.runs()[1].reason == "RuntimeError: my own (telling.py:29)"


@pytest.mark.exhaustive
def test_the_first_failure_of_a_dynamic_run_is_its_reason(world: World) -> None:
    failed = world.submit("pipeline: telling.mapping\ntarget: local\n")

    assert failed.exit_code == 1, failed.stderr
    assert "StartupCancelled" not in failed.stderr
    assert world.runs()[0].reason.startswith("RuntimeError: No inputs to map over found.")


def test_the_headline_of_a_run_whose_sandbox_was_killed_has_the_recorded_state(
    world: World,
) -> None:
    gate = world.gate()
    submitting = world.popen(waiting_spec(gate))
    submitting.stdout.wait_for("waiting in")
    run_id = world.only_run().id
    status = json.loads(world.modalrun("status", run_id, "--output", "json").finish().stdout)

    world.modalrun("local", "kill", status["sandbox"]["id"]).finish()

    done = submitting.finish()
    assert done.exit_code == 7
    why = "its sandbox was terminated from outside or its process killed"
    assert f"Run failed: {why}." in done.stderr
    assert world.only_run().status == "failed"


INTERRUPTED_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == os.environ["INTERRUPTED"]:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    "module", ["modal.client", pytest.param("modalrun.observe.logs", marks=pytest.mark.exhaustive)]
)
def test_an_early_ctrl_c_of_logs_is_answered_with_a_sentence(world: World, module: str) -> None:
    submitting = world.popen("pipeline: retrying.static\ntarget: local\n")
    submitting.stderr.wait_for("retry 1 of 3")
    run_id = world.only_run().id
    site = world.project.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(INTERRUPTED_IMPORT)
    where = {"PYTHONPATH": str(site), "INTERRUPTED": module}

    logs = world.modalrun("logs", "--follow", run_id, **where)

    done = logs.finish()
    assert done.exit_code == 130
    continuing = f"Detached. To continue: 'modalrun logs --follow {run_id}'."
    sentences = ("Interrupted. This ends the command, not the run.", continuing)
    assert done.stderr.splitlines()[-1] in sentences, done.stderr
    world.modalrun("stop", run_id).finish()
    assert submitting.finish().exit_code == 7
