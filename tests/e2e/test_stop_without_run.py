"""`modalrun stop` without RUN stops nothing that may be a colleague's."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.e2e.test_endings import waiting_spec
from tests.e2e.test_steering import settled, shown

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

STOP = [sys.executable, "-m", "modalrun", "stop"]


def give_to(world: World, user: str) -> str:
    """Make another user the one who has submitted all runs; return the one before."""
    (database,) = world.root.rglob("zenml.db")
    with closing(sqlite3.connect(database)) as connection, connection:
        ((before,),) = connection.execute("SELECT DISTINCT user_id FROM pipeline_run")
        columns = [row[1] for row in connection.execute("PRAGMA table_info(user)")]
        values = ", ".join({"id": ":id", "name": "'colleague'"}.get(c, c) for c in columns)
        connection.execute(
            f"INSERT OR IGNORE INTO user SELECT {values} FROM user WHERE id = :own",
            {"id": user, "own": before},
        )
        connection.execute("UPDATE pipeline_run SET user_id = ?", (user,))
    return str(before)


def test_a_run_that_is_not_named_is_stopped_if_it_is_mine_or_i_say_yes(world: World) -> None:
    done = world.submit(waiting_spec(world.gate()), "--async")
    assert done.exit_code == 0, done.stderr
    world.wait_until(lambda: world.only_run().statuses, "the first step runs")
    made = world.only_run()
    mine = give_to(world, uuid4().hex)

    refused = world.modalrun("stop").finish()

    assert refused.exit_code == 2
    words = " ".join(refused.stderr.split())
    assert "the newest run is not yours" in words
    assert f"{made.name} ({made.id}) of the pipeline waiting, submitted by colleague" in words
    assert f"modalrun stop {made.id}" in words

    asked = world.start(STOP, terminal=True)
    world.wait_until(lambda: "[y/N]" in shown(asked), "the question")
    question = " ".join(shown(asked).split())
    assert f"Stop the run {made.name} ({made.id})" in question
    assert "submitted by colleague" in question
    asked.type("n\n")
    assert asked.finish().exit_code == 130
    assert world.only_run().status == "running"

    give_to(world, mine)
    stopped = world.modalrun("stop", "--force").finish()
    assert stopped.exit_code == 0, stopped.stderr
    settled(world, {"wait": "stopped"})
    again = world.modalrun("stop").finish()
    assert again.stderr.splitlines()[-2:] == [
        f"The run {made.id} has ended already: stopped.",
        "'modalrun list --state running' shows the runs that go on.",
    ]
