"""Steps side by side in one sandbox: nothing of one reaches another; `fail_fast` ends them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World

pytestmark = pytest.mark.e2e

SECRETS = """
from zenml.client import Client
for side in ("left", "right"):
    Client().create_secret(name=f"token-{side}", values={f"TOKEN_{side.upper()}": side})
result = None
"""


def spec(pipeline: str, folder: Path, more: str, mode: str = "pipeline") -> str:
    return f"""
pipeline: side_by_side.{pipeline}
target: local
parameters: {{folder: {folder}}}
settings: {{orchestrator: {{max_parallelism: 2, mode: {mode}}}}}
{more}
"""


def test_variables_and_secrets_of_a_step_are_its_own(world: World, tmp_path: Path) -> None:
    world.zenml(SECRETS)
    steps = "".join(
        f"  {side}: {{environment: {{OWN_{side.upper()}: {side}}}, secrets: [token-{side}]}}\n"
        for side in ("left", "right")
    )

    done = world.submit(spec("side_by_side", tmp_path, f"steps:\n{steps}"))

    assert done.exit_code == 0, done.stderr
    for side in ("left", "right"):
        seen = f"OWN_{side.upper()}={side} TOKEN_{side.upper()}={side} LEFT_BEHIND={side}"
        assert f"{side} | {side} sees {seen}\n" in done.stdout
    assert re.search(r"afterwards sees nothing in the folder of (?!$)\w+", done.stdout)


@pytest.mark.parametrize(
    "mode", ["pipeline", pytest.param("per_step", marks=pytest.mark.exhaustive)]
)
def test_fail_fast_ends_the_steps_that_run(world: World, tmp_path: Path, mode: str) -> None:
    done = world.submit(spec("one_fails", tmp_path, "execution_mode: fail_fast", mode))

    assert done.exit_code == 1, done.stderr
    run = world.only_run()
    assert (run.status, run.statuses) == ("failed", {"broken": "failed", "waiting": "stopped"})
    assert re.search(r"^waiting +stopped", done.stderr, re.M), done.stderr
    assert "It was ended early: step `broken` failed." in done.stderr
    if mode == "pipeline":
        assert "waiting | unwinding\n" in done.stdout


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["pipeline", "per_step"])
def test_each_line_and_state_of_inline_steps_arrives(world: World, mode: str) -> None:
    steps = 12
    text = f"pipeline: side_by_side.talking\ntarget: local\nparameters: {{steps: {steps}}}\n"

    done = world.popen(text, "--mode", mode).finish(500)

    assert done.exit_code == 0, done.stderr
    # No event is shown.
    assert 'modalrun"' not in done.stdout
    assert "\nthe function waits\n" in f"\n{done.stdout}"
    for number in range(steps):
        name = f"talk_{number + 1}" if number else "talk"
        shown = re.findall(rf"^(.*)\bstep {number} (try \d line \d+)$", done.stdout, re.M)
        assert {label for label, _ in shown} == {f"{name} | "}
        tries = [f"try {one} line {line}" for one in (1, 2, 3) for line in range(20)]
        assert [line for _, line in shown] == tries
        assert re.search(rf"^{name} +completed", done.stderr, re.M), done.stderr
