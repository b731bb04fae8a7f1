"""A run's time limit, as people write it, and what it means for the cost."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import Result, World

pytestmark = pytest.mark.e2e

SPEC = (
    "pipeline: sandboxes.plain\ntarget: {target}\nsettings: {{orchestrator: {{timeout: {time}}}}}\n"
)


def modalrun(world: World, *arguments: str) -> Result:
    return world.start([sys.executable, "-m", "modalrun", *arguments]).finish()


def test_a_timeout_in_minutes_reaches_modal_in_seconds(world: World) -> None:
    done = world.submit(SPEC.format(target="local", time="1h30m"), "--timeout", "20m")
    assert done.exit_code == 0, done.stderr
    assert [sandbox.timeout_secs for sandbox in world.sandboxes()] == [1200]


def test_a_high_ceiling_has_a_note_and_max_cost_takes_dollars(world: World) -> None:
    path = str(world.spec(SPEC.format(target="modal", time="20h")))
    found = json.loads(modalrun(world, "plan", path, "--gpu", "H100", "-o", "json").stdout)
    assert found["run_sandbox"]["timeout"] == 72_000
    (note,) = [note for note in found["notes"] if "can cost up to" in note]
    assert "'timeout'" in note
    assert "--max-cost" in note
    refused = modalrun(world, "submit", path, "--max-cost", "2h")
    assert (refused.exit_code, "'$5'" in refused.stderr) == (2, True)
    refused = modalrun(world, "submit", path, "--gpu", "H100", "--max-cost", "$5")
    assert refused.exit_code == 10, refused.stderr
    refused = modalrun(world, "submit", path, "--timeout", "soon")
    assert (refused.exit_code, "'1h30m'" in refused.stderr) == (2, True)
    assert world.runs() == []
