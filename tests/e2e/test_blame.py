"""Why a step has failed is stored once, and told alike by every command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

STEPS = "blamed/steps.py"
WAYS = {
    "look up": ("KeyError: 'b' (blamed/prep.py:6)", '  File "blamed/prep.py", line 6, in clean'),
    "exit": (f"SystemExit: no labels ({STEPS}:20)", '    sys.exit("no labels")'),
    "leave": ("The step's process ended with exit code 3.", "about to leave"),
    "be killed": ("The step's process was killed (SIGKILL).", "about to be killed"),
    "import": (
        f"ModuleNotFoundError: No module named 'missing_package_of_nobody' ({STEPS}:26)",
        f'  File "{STEPS}", line 26, in ends',
    ),
    "sleep": (f"The step took longer than its timeout of 20 s. ({STEPS}:28)", "time.sleep(600)"),
}
HINTS = {
    "leave": "look in the step's code and its libraries for a call of 'os._exit'",
    "be killed": "the local Modal server sets no limit of memory: if the machine had no more,",
    "import": "the sandbox has no module 'missing_package_of_nobody': if it is a package's",
    "sleep": "raise 'settings: orchestrator: timeout' (or '--timeout')",
}
CODES = {"leave": 3, "be killed": 137}
DEFAULT = {("pipeline", "be killed"), ("per_step", "import")}


@pytest.mark.parametrize(
    ("mode", "how"),
    [
        pytest.param(mode, how, marks=() if (mode, how) in DEFAULT else (pytest.mark.exhaustive,))
        for mode in ("pipeline", "per_step")
        for how in WAYS
    ],
)
def test_a_failure_is_told_alike_everywhere(world: World, mode: str, how: str) -> None:
    reason, line = WAYS[how]
    spec = f"pipeline: blamed.steps.blamed\ntarget: local\nparameters: {{how: {how}}}\n"
    if how == "sleep":
        scope = "steps: {ends: {settings: {orchestrator: {timeout: 20}}}}"
        spec += scope if mode == "per_step" else "settings: {orchestrator: {timeout: 20}}"
        reason = reason if mode == "per_step" else reason.replace("The step", "The run")

    done = world.submit(spec, "--mode", mode)

    run_id = world.only_run().id
    command = f"modalrun logs {run_id} --step ends"
    assert done.exit_code == (6 if how == "sleep" and mode == "pipeline" else 1)
    told = done.stderr[done.stderr.index("\nRun ") :]
    assert f"  ends: {reason}\n" in told and line in told and f"    {command}\n" in told, told
    shown = world.modalrun("status", run_id).finish().stdout
    assert f"  ends: {reason}\n" in shown and line in shown and f"    {command}\n" in shown, shown
    status = json.loads(world.modalrun("status", run_id, "--output", "json").finish().stdout)
    if done.exit_code == 6:
        assert (status["exit_code"], status["headline"]) == (6, "Run timed out after 20 s.")
    (step,) = status["steps"]
    assert step["exit_reason"] == reason
    failure = step["failure"]
    assert any(line in one for one in failure["lines"]), failure
    assert reason.startswith(": ".join(filter(None, (failure["class"], failure["message"]))))
    hint, code = HINTS.get(how), CODES.get(how)
    assert (step["next"] or "").startswith(hint or ""), step
    assert bool(hint) == ("next: " in told) == ("next: " in shown), shown
    assert code is None or step["exit_code"] == code
    # Of a traceback, only the project's own part.
    assert not any("zenml" in one or "modalrun" in one for one in failure["lines"]), failure
    listed = world.modalrun("list").finish().stdout
    assert status["zenml"]["reason"] in listed
    # The reason of a run that timed out is that.
    assert reason.partition(" (blamed")[0] in listed, listed
    assert f"next: 'modalrun status {run_id[:8]}' says" in listed or not hint, listed
    assert "about to" in world.modalrun(*command.split()[1:]).finish().stdout


def test_a_job_on_github_is_told_the_same(world: World) -> None:
    reason, line = WAYS["look up"]
    done = world.submit("pipeline: blamed.steps.blamed\ntarget: local\n", GITHUB_ACTIONS="true")

    run_id = world.only_run().id
    (annotation,) = [one for one in done.stdout.splitlines() if one.startswith("::error")]
    assert annotation.startswith(f"::error title=Step ends failed::{reason}%0A")
    assert line in annotation
    assert annotation.endswith(f"%0Amodalrun logs {run_id} --step ends")
    # No line of the log leads into the folder of a sandbox.
    assert 'File "blamed/prep.py", line 6, in clean' in done.stdout
    assert "app/code" not in done.stdout + done.stderr
