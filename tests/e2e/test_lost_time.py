"""A run that was lost has lasted as long as its steps gave a sign of life."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING

import pytest
from servers.records import SQLiteRecords

from modalrun.localmodal import launcher

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e
EVERY = pytest.mark.exhaustive

AN_HOUR_AGO = """
UPDATE step_run SET start_time = datetime(start_time, '-1 hour'),
    latest_heartbeat = datetime(latest_heartbeat, '-1 hour');
UPDATE pipeline_run SET start_time = datetime(start_time, '-1 hour');
"""


@pytest.mark.local_store("it changes the times in the database")
@pytest.mark.parametrize(
    ("mode", "command"),
    [
        ("pipeline", "reconcile"),
        pytest.param("per_step", "reconcile", marks=EVERY),
        pytest.param("pipeline", "stop", marks=EVERY),
        pytest.param("per_step", "stop --force", marks=EVERY),
    ],
)
def test_an_hour_in_which_nothing_ran_is_no_time_of_a_step(
    world: World, mode: str, command: str
) -> None:
    settings = f"settings: {{orchestrator: {{mode: {mode}}}}}\n"
    spec = f"pipeline: waiting.waiting\ntarget: local\nparameters: {{gate: {world.gate()}}}\n"
    submitted = world.submit(f"{spec}{settings}", "--async")
    assert submitted.exit_code == 0, submitted.stderr
    world.wait_until(lambda: world.only_run().statuses.get("wait") == "running", "it runs")
    assert isinstance(world.records, SQLiteRecords)
    database = world.records.file
    world.wait_until(
        lambda: world.records.rows("SELECT id FROM step_run WHERE latest_heartbeat IS NOT NULL"),
        "it has given a sign of life",
    )
    for sandbox in sorted(world.sandboxes(), key=lambda one: "step" in str(one.tags)):
        launcher.kill(sandbox.id, world.state)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.executescript(AN_HOUR_AGO)

    done = world.modalrun(*command.split(), world.only_run().id, HOME=str(world.home)).finish()

    assert done.exit_code == 0, done.stderr
    shown = world.modalrun("status", "--output", "json", world.only_run().id).finish()
    seen = json.loads(shown.stdout)
    (wait,) = (step for step in seen["steps"] if step["name"] == "wait")
    assert 0 <= wait["duration"] <= 120
    assert 0 <= seen["duration"] < 600
