"""A ZenML server that answers requests with errors of its own."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from servers.troubled import Proxy, Trouble

from tests.realserver.test_runs import PER_STEP, waiting

if TYPE_CHECKING:
    from tests.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.exhaustive]

MODES = pytest.mark.parametrize("mode", ["", PER_STEP], ids=["pipeline", "per_step"])
DONE = {"wait": "completed", "afterwards": "completed"}


def assert_ran_once(world: World) -> None:
    """The run completed, each step in one attempt, with its outputs stored once."""
    run = world.only_run()
    assert (run.status, run.statuses) == ("completed", DONE)
    assert [step.version for step in run.steps] == [1, 1]
    versions = world.records.rows(
        "SELECT artifact_version.version FROM artifact_version"
        f" WHERE {world.records.mine('artifact_version')}"
    )
    assert {str(version) for (version,) in versions} <= {"1"}, versions
    world.wait_until(
        lambda: all(box.finished_at for box in world.sandboxes()), "every sandbox has ended"
    )


@MODES
@pytest.mark.parametrize("handled", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("status", [500, 502])
def test_the_end_of_a_step(
    world: World, proxy: Proxy, mode: str, handled: bool, status: int
) -> None:
    gate = world.gate()
    command = world.popen(waiting(gate, mode))
    command.stdout.wait_for("wait | waiting in")

    proxy.trouble = Trouble("PUT /api/v1/steps/[^/]+$", 3, status, handled)
    gate.open()

    done = command.finish()
    assert done.exit_code == 0, done.stderr
    assert len(proxy.trouble.seen) == 3
    assert_ran_once(world)


@MODES
@pytest.mark.parametrize("cut", [False, True], ids=["page", "cut"])
def test_an_end_of_a_step_whose_answer_is_lost(
    world: World, proxy: Proxy, mode: str, cut: bool
) -> None:
    gate = world.gate()
    command = world.popen(waiting(gate, mode))
    command.stdout.wait_for("wait | waiting in")

    lost = "(POST /api/v1/artifact_versions|PUT /api/v1/steps/[^/]+)$"
    proxy.trouble = Trouble(lost, 3, status=200, page=not cut, cut=cut, handled=True)
    gate.open()

    done = command.finish()
    assert done.exit_code == 0, done.stderr
    assert len(proxy.trouble.seen) == 3
    assert_ran_once(world)


@MODES
def test_twenty_seconds_of_trouble_when_a_step_ends(world: World, proxy: Proxy, mode: str) -> None:
    gate = world.gate()
    command = world.popen(waiting(gate, mode))
    command.stdout.wait_for("wait | waiting in")

    proxy.trouble = Trouble("/api/v1/", None)
    gate.open()
    command.stderr.wait_for("The ZenML server answers with status 500; trying again.")
    seen = proxy.trouble.seen
    # As often as takes a request with ZenML's pauses 20 s.
    world.wait_until(lambda: len(seen) >= 8, "several requests have failed")
    proxy.trouble = None

    done = command.finish()
    assert done.exit_code == 0, done.stderr
    assert_ran_once(world)


@pytest.mark.parametrize(
    "requests",
    [
        "GET /api/v1/info",
        "POST /api/v1/login",
        "GET /api/v1/",
        "POST /api/v1/pipeline_snapshots",
        "POST /api/v1/runs",
        "POST /api/v1/steps",
        "POST /api/v1/artifact_versions",
        "POST /api/v1/run-metadata",
        "PUT /api/v1/runs/",
    ],
)
def test_one_error_anywhere(world: World, proxy: Proxy, requests: str) -> None:
    gate = world.gate()
    proxy.trouble = Trouble(requests, 2)
    command = world.popen(waiting(gate, PER_STEP))
    gate.open()
    done = command.finish()
    assert done.exit_code == 0, done.stderr
    assert_ran_once(world)


@pytest.mark.parametrize("status", [500, 502])
@pytest.mark.parametrize("what", ["pipeline_snapshots", "runs", "steps", "artifact_versions"])
def test_what_was_stored_before_an_error_is_not_stored_twice(
    world: World, proxy: Proxy, what: str, status: int
) -> None:
    """A repeated request has the key of the first one, and the server returns what that made."""
    gate = world.gate()
    proxy.trouble = Trouble(f"POST /api/v1/{what}", 2, status, handled=True)
    command = world.popen(waiting(gate, PER_STEP))
    gate.open()
    done = command.finish()
    assert done.exit_code == 0, done.stderr
    assert len(proxy.trouble.seen) == 2
    assert_ran_once(world)


def test_a_stop_by_a_signal_ends_the_sandboxes(world: World, proxy: Proxy) -> None:
    command = world.popen(waiting(world.gate(), PER_STEP), "--on-interrupt", "stop")
    command.stdout.wait_for("wait | waiting in")

    proxy.trouble = Trouble("/api/v1/", None)
    command.signal(signal.SIGTERM)

    done = command.finish()
    assert done.exit_code == 143, done.stderr
    assert all(box.finished_at for box in world.sandboxes())
    run = world.only_run().id
    proxy.trouble = None
    assert run in done.stderr
    stopped = world.modalrun("stop", run).finish()
    assert stopped.exit_code == 0, stopped.stderr
    assert world.only_run().status == "stopped"


def test_a_run_that_gets_no_token_is_recorded_as_failed(world: World, proxy: Proxy) -> None:
    proxy.trouble = Trouble("GET /api/v1/api_token", None, 403)

    done = world.submit(waiting(world.gate()))

    assert done.exit_code == 3, done.stderr
    run = world.only_run()
    assert run.status == "failed"
    assert run.reason.startswith("The run sandbox was not created: ")
    listed = world.modalrun("list", "--state", "failed").finish()
    assert run.id[:8] in listed.stdout, listed.stdout
    status = world.modalrun("status", run.id, "--exit-status").finish()
    assert status.exit_code == 3, status.stdout


@pytest.mark.parametrize("request_", ["POST /api/v1/runs$", "GET /api/v1/api_token"])
def test_a_signal_while_a_run_can_not_be_created(world: World, proxy: Proxy, request_: str) -> None:
    proxy.trouble = Trouble(request_, None)
    command = world.popen(waiting(world.gate()))
    world.wait_until(lambda: proxy.trouble and proxy.trouble.seen, "the request fails")

    command.signal(signal.SIGTERM)

    done = command.finish(20)
    assert done.exit_code == 143, done.stderr
    assert world.sandboxes() == []
    if "token" in request_:
        assert world.only_run().status == "stopped"
        assert "nothing of it is running" in done.stderr
    else:
        assert world.runs() == []
        assert "ZenML has not answered" in done.stderr


def test_a_signal_while_an_accepted_run_can_not_be_recorded(world: World, proxy: Proxy) -> None:
    proxy.trouble = Trouble("POST /api/v1/run-metadata", None)
    gate = world.gate()
    command = world.popen(waiting(gate), "--async", "--on-interrupt", "detach")
    command.stderr.wait_for("  sandbox  ")

    command.signal(signal.SIGTERM)

    done = command.finish(20)
    assert done.exit_code == 143, done.stderr
    assert "continues in its sandbox" in done.stderr
    proxy.trouble = None
    gate.open()
    world.wait_until(lambda: world.only_run().status == "completed", "the run completes")


def test_a_run_whose_creation_is_answered_by_a_page(world: World, proxy: Proxy) -> None:
    spec = world.spec("pipeline: diamond.diamond\ntarget: local\n")
    assert world.submit(spec).exit_code == 0

    proxy.trouble = Trouble("POST /api/v1/runs$", 1, status=200, page=True, handled=True)
    done = world.submit(spec)

    assert done.exit_code == 0, done.stderr
    assert [run.status for run in world.runs()] == ["completed", "completed"]


def test_a_page_of_a_proxy_is_not_a_run_that_is_missing(world: World, proxy: Proxy) -> None:
    assert world.submit(world.spec("pipeline: diamond.diamond\ntarget: local\n")).exit_code == 0
    run = world.only_run().id

    proxy.trouble = Trouble("GET /api/v1/runs", 2, status=404, page=True)
    assert world.modalrun("status", run).finish().exit_code == 0
    proxy.trouble = Trouble("GET /api/v1/runs", None, status=413, page=True)
    done = world.modalrun("status", run).finish()

    assert done.exit_code == 8, done.stderr
    assert "an answer that is not ZenML's, with status 413" in " ".join(done.stderr.split())


def test_commands_beside_a_run(world: World, proxy: Proxy) -> None:
    gate = world.gate()
    command = world.popen(waiting(gate))
    command.stdout.wait_for("wait | waiting in")
    run = world.only_run().id
    for arguments in (["status", run], ["list"], ["logs", run], ["stop", run, "--force"]):
        proxy.trouble = Trouble("/api/v1/", 2)
        done = world.modalrun(*arguments).finish()
        assert done.exit_code == 0, (arguments, done.stderr)
    assert command.finish().exit_code == 7
