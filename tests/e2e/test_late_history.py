"""Output that Modal has removed from its worker, and whose log store lags behind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_per_step import per_step

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

GONE = {"rpc": "SandboxStdioReadV2", "action": "error", "status": "NOT_FOUND", "times": None}
LINES = ["loaded 4 numbers", "joined 10 and 30"]


@pytest.mark.parametrize(
    "mode", ["pipeline", pytest.param("per_step", marks=pytest.mark.exhaustive)]
)
def test_no_line_and_no_event_is_missing(world: World, mode: str) -> None:
    world.server()
    (world.state / "faults.json").write_text(json.dumps({"rules": [GONE], "lags": {"history": 3}}))

    done = world.submit(per_step("diamond.diamond"), "--mode", mode)

    assert done.exit_code == 0, done.stderr
    run = world.only_run()
    logs = world.modalrun("logs", run.id).finish()
    assert logs.exit_code == 0, logs.stderr
    for line in LINES:
        assert done.stdout.count(line) == logs.stdout.count(line) == 1
    for step in ("load", "left", "right", "join"):
        assert any(line.split()[:2] == [step, "completed"] for line in done.stderr.splitlines())
    assert "\x1e" not in done.stdout + done.stderr + logs.stdout
