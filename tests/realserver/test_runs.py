"""Runs as teams have them: a ZenML server with a database, artifacts in S3, an API key."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from servers.workspace import secret_of

if TYPE_CHECKING:
    from tests.world import Result, World

pytestmark = pytest.mark.e2e

PER_STEP = "settings: {orchestrator: {mode: per_step}}\n"
DIAMOND = "pipeline: diamond.diamond\ntarget: local\n"
STEPS = {"load", "left", "right", "join"}


def waiting(gate: object, more: str = "") -> str:
    """A run spec whose first step waits at a gate."""
    return f"pipeline: waiting.waiting\ntarget: local\nparameters: {{gate: {gate}}}\n{more}"


def modalrun(world: World, *arguments: str) -> Result:
    """A command of modalrun's, as from another machine: only the environment is the same."""
    return world.modalrun(*arguments).finish()


def assert_no_secret(world: World, *shown: Result) -> None:
    """Neither the API key nor the run's token is where somebody could see it."""
    assert world.place is not None
    # What every JSON web token begins with: `{"alg":`.
    secrets = [secret_of(world.place.key), "ZENKEY_", "eyJhbGciOi"]
    sandboxes = world.sandboxes()
    for sandbox in sandboxes:
        assert "ZENML_STORE_API_TOKEN" in sandbox.variables
        assert "ZENML_STORE_API_KEY" not in sandbox.variables
    recorded = world.records.rows(
        "SELECT run.client_environment, run.orchestrator_environment, step_configuration.config,"
        " pipeline_snapshot.pipeline_configuration FROM pipeline_run AS run"
        " JOIN pipeline_snapshot ON pipeline_snapshot.id = run.snapshot_id"
        " JOIN step_configuration ON step_configuration.snapshot_id = run.snapshot_id"
        f" WHERE {world.records.mine('run')}"
    ) + world.records.rows(
        f"SELECT value FROM run_metadata WHERE {world.records.mine('run_metadata')}"
    )
    texts = {
        "commands": "".join(result.stdout + result.stderr for result in shown),
        "sandboxes": json.dumps([vars(sandbox) for sandbox in sandboxes]),
        "logs": "".join(path.read_text("utf-8", "replace") for path in world.log_files()),
        "records": str(recorded),
    }
    for where, text in texts.items():
        assert text, where
        assert [secret for secret in secrets if secret in text] == [], where


def test_a_sandbox_for_each_step_with_artifacts_in_s3(world: World) -> None:
    assert world.place is not None and world.servers is not None
    spec = world.spec(DIAMOND + PER_STEP)

    done = world.submit(spec)

    assert done.exit_code == 0, done.stderr
    run = world.only_run()
    assert run.status == "completed"
    assert run.statuses == dict.fromkeys(STEPS, "completed")
    assert run.stack == world.place.name
    assert f"{world.place.url}/projects/{world.place.name}/runs/{run.id}" in done.stderr
    stored = world.servers.s3.keys(world.place.prefix)
    for step in STEPS:
        assert any(f"/{step}/" in name for name in stored), stored
    status = modalrun(world, "status", run.id, "--output", "json")
    assert status.exit_code == 0, status.stderr
    told = json.loads(status.stdout)
    assert told["state"] == "completed"
    logs = modalrun(world, "logs", run.name)
    assert "load | loaded 4 numbers\n" in logs.stdout
    assert_no_secret(world, done, status, logs)


def test_left_alone_followed_and_stopped_from_elsewhere(world: World) -> None:
    gate = world.gate()
    done = world.submit(waiting(gate), "--async")
    assert done.exit_code == 0, done.stderr
    run_id = done.stdout.strip()

    follow = world.modalrun("logs", "--follow", run_id)
    follow.stdout.wait_for("wait | waiting in")
    stop = world.modalrun("stop", run_id)
    stop.stderr.wait_for("waiting for the running steps to finish: wait")
    for command in world.processes().values():
        assert "ZENKEY_" not in command and "eyJhbGciOi" not in command
    gate.open()

    stopped, followed = stop.finish(), follow.finish()
    assert stopped.exit_code == 0, stopped.stderr
    assert "wait | the gate is open\n" in followed.stdout
    run = world.only_run()
    assert (run.status, run.statuses) == ("stopped", {"wait": "completed"})
    assert all(box.finished_at for box in world.sandboxes())
    assert_no_secret(world, done, stopped, followed)


@pytest.mark.exhaustive
def test_what_ran_before_is_cached_on_any_machine_and_listed(world: World) -> None:
    spec = world.spec(DIAMOND)
    first = world.submit(spec)
    assert first.exit_code == 0, first.stderr
    # The artifact store is the same one everywhere, so there is nothing left to do.
    second = world.modalrun("submit", str(spec)).finish()
    assert second.exit_code == 0, second.stderr

    _, again = world.runs()
    assert (again.status, again.statuses) == ("completed", dict.fromkeys(STEPS, "cached"))
    assert len(world.sandboxes()) == 1
    listed = modalrun(world, "list", "--output", "json")
    assert listed.exit_code == 0, listed.stderr
    assert {run.id for run in world.runs()} <= set(listed.stdout.replace('"', " ").split())
    assert_no_secret(world, first, second, listed)


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", ["", PER_STEP], ids=["pipeline", "per_step"])
def test_a_step_that_raises(world: World, mode: str) -> None:
    done = world.submit(f"pipeline: branches.branches\ntarget: local\n{mode}")

    assert done.exit_code == 1, done.stderr
    run = world.only_run()
    assert run.status == "failed"
    assert run.statuses == {
        "start": "completed",
        "broken": "failed",
        "first": "completed",
        "second": "completed",
        "third": "completed",
    }
    assert "ValueError: broken on purpose, 1" in done.stdout + done.stderr
    assert modalrun(world, "status", run.id, "--exit-status").exit_code == 1
    assert_no_secret(world, done)


@pytest.mark.exhaustive
def test_a_run_is_resumed_from_another_machine(world: World) -> None:
    gate = world.gate()
    command = world.popen(waiting(gate, PER_STEP))
    command.stdout.wait_for("wait | waiting in")
    driver = world.sandboxes()[0]
    assert world.modal("container", "stop", "--yes", driver.task_id).exit_code == 0
    lost = command.finish()
    assert lost.exit_code == 7, lost.stderr
    run_id = world.only_run().id

    gate.open()
    command = [sys.executable, "-m", "modalrun", "resume", run_id]
    resumed = world.start(command, cwd=world.project).finish(300)

    assert resumed.exit_code == 0, resumed.stderr
    assert world.only_run().statuses == {"wait": "completed", "afterwards": "completed"}
    assert_no_secret(world, lost, resumed)


@pytest.mark.exhaustive
def test_a_plan_shows_no_secret(world: World) -> None:
    spec = str(world.spec(DIAMOND + PER_STEP))
    shown = [
        modalrun(world, "plan", spec, "--explain"),
        modalrun(world, "plan", spec, "--output", "json"),
        modalrun(world, "compile", spec, "-o", str(world.root / "deployment.json")),
        modalrun(world, "--debug", "doctor", spec),
    ]
    assert [result.exit_code for result in shown] == [0] * 4, [r.stderr for r in shown]
    assert world.place is not None and world.servers is not None
    everything = "".join(result.stdout + result.stderr for result in shown)
    everything += (world.root / "deployment.json").read_text()
    for secret in (secret_of(world.place.key), "ZENKEY_", world.servers.s3.secret):
        assert secret not in everything
