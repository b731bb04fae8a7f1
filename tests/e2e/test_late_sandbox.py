"""A sandbox that Modal creates after its submission has given it up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.exhaustive]

GIVEN_UP = """
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunUpdate
(run,) = Client().list_pipeline_runs().items
reason = "The run sandbox was not created: the connection is lost."
update = PipelineRunUpdate(status=ExecutionStatus.FAILED, status_reason=reason)
result = Client().zen_store.update_run(run.id, update).status
"""


@pytest.mark.parametrize("mode", ["pipeline", "per_step"])
def test_it_ends_at_once(world: World, mode: str) -> None:
    world.server()
    (world.state / "faults.json").write_text(json.dumps({"boot_delay": 30}))
    spec = f"pipeline: retrying.static\ntarget: local\nmode: {mode}\n"
    done = world.submit(spec, "--async")
    assert done.exit_code == 0, done.stderr

    assert world.zenml(GIVEN_UP) == "failed"

    world.wait_until(lambda: all(box.finished_at for box in world.sandboxes()), "it ends", 150)
    run = world.only_run()
    assert (run.status, run.statuses) == ("failed", {})
    assert run.reason == "The run sandbox was not created: the connection is lost."
