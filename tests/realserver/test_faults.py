"""A ZenML server that restarts, tokens that expire, keys that are revoked."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from servers.workspace import Workspace, accepts, login
from servers.zenml_server import ZenMLServer

if TYPE_CHECKING:
    from tests.world import World

from tests.e2e.test_endings import pids
from tests.realserver.test_runs import PER_STEP, waiting

pytestmark = pytest.mark.e2e

MODES = pytest.mark.parametrize("mode", ["", PER_STEP], ids=["pipeline", "per_step"])
DONE = {"wait": "completed", "afterwards": "completed"}


@pytest.fixture
def own_server(world: World, tmp_path: Path) -> Iterator[ZenMLServer]:
    """Another server on the same database, for this test alone; its tokens live a minute."""
    assert world.servers is not None
    server = ZenMLServer(
        tmp_path / "zenml-server",
        world.servers.backend,
        {"ZENML_SERVER_JWT_TOKEN_EXPIRE_MINUTES": "1"},
    )
    server.start()
    world.environment["ZENML_STORE_URL"] = server.url
    yield server
    server.stop()


def place_of(world: World) -> Workspace:
    """Where the world is on the server."""
    assert world.place is not None
    return world.place


def revoke(world: World) -> None:
    """Delete the API key, as somebody does who has seen it in a log."""
    assert world.servers is not None
    place = place_of(world)
    world.servers.api().delete(f"/service_accounts/{place.account}/api_keys/{place.key_id}")


def assert_nothing_runs(world: World) -> None:
    """Every sandbox has ended."""
    world.wait_until(
        lambda: all(box.finished_at for box in world.sandboxes()), "every sandbox has ended"
    )


@pytest.mark.exhaustive
def test_a_key_that_is_revoked_before_the_submission(world: World) -> None:
    revoke(world)

    done = world.submit(waiting("nowhere"))

    assert done.exit_code == 3, done.stderr
    assert "ZenML did not accept the credentials" in done.stderr
    assert "ZENML_STORE_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr
    assert (world.runs(), world.sandboxes()) == ([], [])


@pytest.mark.exhaustive
@MODES
def test_a_key_that_is_revoked_during_a_run(world: World, mode: str) -> None:
    gate = world.gate()
    command = world.popen(waiting(gate, mode))
    command.stdout.wait_for("wait | waiting in")

    revoke(world)
    gate.open()

    done = command.finish()
    run = world.only_run()
    assert done.exit_code == 3, done.stderr
    said = " ".join(done.stderr.split())
    assert "The run sandbox ended" in said
    assert f"modalrun status {run.id}" in said and f"modalrun reconcile {run.id}" in said
    assert_nothing_runs(world)
    # Nobody could record anything. With a new key the record is set right.
    assert run.statuses == {"wait": "running"}
    assert world.servers is not None
    place = place_of(world)
    made = world.servers.api().post(
        f"/service_accounts/{place.account}/api_keys", {"name": "another"}
    )
    key = {"ZENML_STORE_API_KEY": made["body"]["key"]}
    settled = world.modalrun("reconcile", run.id, **key).finish()
    assert settled.exit_code == 0, settled.stderr
    assert world.only_run().status == "failed"


@pytest.mark.exhaustive
@MODES
def test_a_server_that_restarts_while_a_step_ends(
    world: World, own_server: ZenMLServer, mode: str
) -> None:
    gate = world.gate()
    command = world.popen(waiting(gate, mode))
    command.stdout.wait_for("wait | waiting in")

    own_server.stop()
    gate.open()
    command.stdout.wait_for("wait | the gate is open")
    command.stderr.wait_for("The ZenML server doesn't answer")
    own_server.start()

    done = command.finish()
    assert done.exit_code == 0, done.stderr
    run = world.only_run()
    assert (run.status, run.statuses) == ("completed", DONE)
    assert [step.version for step in run.steps] == [1, 1]
    assert_nothing_runs(world)


@pytest.mark.exhaustive
@pytest.mark.timeout(400)
def test_a_server_that_is_away_while_a_worker_opens_its_store(
    world: World, own_server: ZenMLServer
) -> None:
    gate = world.gate()
    retry = "steps: {wait: {retry: {max_retries: 1, delay: 0}}}"
    command = world.popen(waiting(gate, retry))
    worker = pids(world, command).worker

    own_server.stop()
    # Another worker records its death.
    os.kill(worker, signal.SIGKILL)
    command.stderr.wait_for("The ZenML server has trouble")
    own_server.start()
    gate.open()

    done = command.finish()
    assert done.exit_code == 0, done.stderr
    run = world.only_run()
    assert run.status == "completed"
    assert [(step.name, step.status) for step in run.steps if step.version > 1] == [
        ("wait", "completed")
    ]
    assert_nothing_runs(world)


@pytest.mark.exhaustive
@MODES
@pytest.mark.timeout(400)
def test_tokens_that_expire_during_a_run(world: World, own_server: ZenMLServer, mode: str) -> None:
    gate = world.gate()
    command = world.popen(waiting(gate, mode))
    command.stdout.wait_for("wait | waiting in")

    # Whatever token somebody else has by now is older than this one.
    token = login(own_server.url, place_of(world).key)
    world.wait_until(lambda: not accepts(own_server.url, token), "a new token has expired")
    gate.open()

    done = command.finish()
    assert done.exit_code == 0, done.stderr
    assert world.only_run().statuses == DONE


@pytest.mark.exhaustive
@pytest.mark.timeout(400)
def test_a_login_that_expires_during_a_run(world: World, own_server: ZenMLServer) -> None:
    gate = world.gate()
    token = login(own_server.url, place_of(world).key)
    # What `zenml login` leaves: a token that can't be renewed without its user.
    del world.environment["ZENML_STORE_API_KEY"]
    command = world.popen(waiting(gate), ZENML_STORE_API_TOKEN=token)
    command.stdout.wait_for("wait | waiting in")

    world.wait_until(lambda: not accepts(own_server.url, token), "the token has expired")
    gate.open()

    done = command.finish()
    run = world.only_run()
    assert done.exit_code == 3, done.stderr
    said = " ".join(done.stderr.split())
    assert "The run sandbox ended (completed)" in said
    assert f"modalrun status {run.id}" in said
    # The run has a token of its own.
    assert (run.status, run.statuses) == ("completed", DONE)
    key = {"ZENML_STORE_API_KEY": place_of(world).key}
    told = world.modalrun("status", run.id, "--exit-status", **key).finish()
    assert told.exit_code == 0, told.stderr
