"""Progress bars: shown while they move, and in the logs once."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

STORED = """
from modalrun.zenml_api.records.step_logs import stored_lines
result = [line.text for line in stored_lines("{run}") if line.step == "train"]
"""


@pytest.mark.parametrize(
    "mode", ["pipeline", pytest.param("per_step", marks=pytest.mark.exhaustive)]
)
def test_a_bar_is_shown_while_it_moves_and_logged_once(world: World, mode: str) -> None:
    first, second = world.gate("first"), world.gate("second")
    submitting = world.popen(
        f"pipeline: redrawing.redrawing\ntarget: local\nparameters: {{first: '{first}', second: "
        f"'{second}'}}\nsettings: {{orchestrator: {{mode: {mode}, max_parallelism: 2}}}}\n",
        terminal=True,
    )
    both = ("epoch 3/10  31 %", "got 500 MB")
    world.wait_until(
        lambda: all(text in submitting.stdout.text for text in both), "both bars are shown"
    )
    run = world.only_run()
    command = ["-m", "modalrun", "status", run.id, "--watch"]
    watching = world.start([sys.executable, *command], terminal=True)
    world.wait_until(
        lambda: all(text in watching.stdout.text for text in both), "both bars are watched"
    )
    first.open()
    second.open()

    assert submitting.finish().exit_code == watching.finish().exit_code == 0
    timeline = world.modalrun("status", run.id, "--timeline").finish().stdout
    for step in ("fetch", "train"):
        assert re.search(rf"^{step} +completed +[wsi]*R+$", timeline, re.M), timeline
    logs = world.modalrun("logs", run.id).finish()
    shown = (logs.stdout + logs.stderr).splitlines()
    own = [line for line in shown if " Step " not in line and "ZenML" not in line]
    assert sorted(own) == [
        "fetch | done",
        "fetch | got 500 MB",
        "train | epoch 3/10  99 %",
        "train | train begins",
        "train | train ends",
    ]
    stored = [line for line in world.zenml(STORED.format(run=run.id)) if "heartbeat" not in line]
    assert stored == ["train begins", "epoch 3/10  99 %", "train ends"]
