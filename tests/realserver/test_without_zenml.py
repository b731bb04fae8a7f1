"""Commands that look at a run and stop it, by requests to the server instead of ZenML's client."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from servers.process import free_port
from servers.troubled import Proxy, Trouble

from tests.e2e.test_shell_completion import completed
from tests.realserver.test_faults import revoke
from tests.realserver.test_runs import DIAMOND, PER_STEP, waiting

if TYPE_CHECKING:
    from tests.world import Result, World

pytestmark = pytest.mark.e2e

BY_ZENML = {"ZENML_CONTAINER": "true"}
"""With this, modalrun leaves everything to ZenML's own client."""

COMMAND = """
import sys
from modalrun import cli
code = cli.run(sys.argv[1:])
print(sorted({name.partition(".")[0] for name in sys.modules} & {"zenml", "modal"}))
sys.exit(code)
"""

READ = """
import dataclasses
from datetime import datetime, timedelta, timezone
from pathlib import Path
from modalrun.errors import ModalrunError
from modalrun.zenml_api import config_files, process
from modalrun.zenml_api.gateway import ZenMLGateway
from modalrun.zenml_api.records import stores
from modalrun.zenml_api.records.rest_store import RestStore
from modalrun.zenml_api.rest.session import connect

RUNS = {runs!r}
UNKNOWN = "00000000-0000-4000-8000-000000000000"
NOW = datetime.now(timezone.utc)


def told(call, *arguments, **named):
    try:
        return repr(call(*arguments, **named))
    except ModalrunError as error:
        return repr((type(error), error.problem, error.effect, error.hint))


def everything(zenml):
    for id, name in RUNS:
        for call in (
            zenml.read_run, zenml.read_run_and_steps, zenml.matching_runs, zenml.step_names,
            zenml.unfinished_steps, zenml.stop_requested, zenml.app_of, zenml.read_source,
        ):
            yield call.__name__, told(call, id)
        for step in (None, *(zenml.step_names(id) or ())):
            yield "environment_of", told(zenml.environment_of, id, step)
        for text in (name, id[:6], id.upper()):
            yield "matching_runs", told(zenml.matching_runs, text)
        for target in ("local", "modal"):
            yield "credentials_of", told(zenml.credentials_of, id, target)
    for call in (zenml.read_run, zenml.read_run_and_steps, zenml.app_of, zenml.mark_stopping):
        yield call.__name__, told(call, UNKNOWN, *["x"] * (call is zenml.mark_stopping))
    yield "matching_runs", told(zenml.matching_runs, UNKNOWN)
    yield "finalize_run", told(zenml.finalize_run, UNKNOWN, "x")
    for filters in (
        {{}}, {{"limit": 1}}, {{"states": ["failed", "running"]}}, {{"states": ["running"]}},
        {{"pipeline": "diamond"}}, {{"everybodys": True}}, {{"since": NOW + timedelta(days=1)}},
    ):
        found = zenml.newest_runs(**{{"limit": 20, **filters}})
        yield "newest_runs", repr(found)
        yield "step_attempts", repr(zenml.step_attempts(found))


folder = config_files.folder()
with process.zenml_process(Path.cwd()):
    lean = RestStore(connect(folder))
    stores.use(lean)
    by_requests = list(everything(ZenMLGateway()))
    assert lean._zenml is None
    stores.open_zenml()
    stores.use(None)
    by_zenml = list(everything(ZenMLGateway()))
result = [by_requests, by_zenml]
"""


def modalrun(world: World, *arguments: str, **environment: str) -> tuple[Result, list[str]]:
    """Run a command in a process of its own; return also which SDKs it has imported."""
    command = [sys.executable, "-c", COMMAND, *arguments]
    done = world.start(command, **environment).finish()
    text, _, loaded = done.stdout.rstrip().rpartition("\n")
    return replace(done, stdout=text), json.loads(loaded.replace("'", '"'))


def both(world: World, *arguments: str) -> tuple[Result, Result]:
    """Run a command in both ways."""
    lean, loaded = modalrun(world, *arguments)
    full, _ = modalrun(world, *arguments, **BY_ZENML)
    assert "zenml" not in loaded or lean.exit_code, loaded
    return lean, full


def plain(text: str) -> str:
    """Text without what differs between two runs of a command: times, and the width they take."""
    timeless = re.sub(r"(\d+ [dhm] )*\d[\d.]* ?[smhd]\b|\d\d:\d\d:\d\d| +\|", "TIME", text)
    return re.sub(r" {2,}", "  ", timeless)


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_both_ways_read_the_same(world: World, *, every: bool) -> None:
    gate = world.gate()
    failing = "pipeline: ends.one\ntarget: local\nparameters: {way: raises, retries: 0}\n"
    assert world.submit(waiting(gate, PER_STEP), "--async").exit_code == 0
    world.wait_until(lambda: world.only_run().statuses.get("wait") == "running", "the step runs")
    assert world.submit(failing).exit_code == 1
    if every:
        assert world.submit(DIAMOND + PER_STEP).exit_code == 0
        assert world.submit(DIAMOND).exit_code == 0
    runs = [(run.id, run.name) for run in world.runs()]

    by_requests, by_zenml = world.zenml(READ.format(runs=runs))

    assert len(by_requests) > 15 * len(runs)
    for ours, theirs in zip(by_requests, by_zenml, strict=True):
        assert ours == theirs
    running, failed, done = runs[0][0], runs[1][1], runs[-1][0]
    few = [("status", running), ("list",)]
    others = [
        ("status", failed),
        ("logs", done),
        ("status", done),
        ("status", done, "--output", "json"),
        ("status", running, "--exit-status"),
        ("list", "--all", "--output", "json"),
        ("logs", running),
        ("logs", failed),
        ("status", "nothing-like-it"),
        ("logs", "0" * 8),
    ]
    for arguments in [*few, *others] if every else few:
        lean, full = both(world, *arguments)
        assert (lean.exit_code, plain(lean.stdout), plain(lean.stderr)) == (
            (full.exit_code, plain(full.stdout), plain(full.stderr))
        ), arguments
    gate.open()
    world.wait_until(lambda: world.runs()[0].status == "completed", "the run completes")


@pytest.mark.exhaustive
@pytest.mark.parametrize("force", [False, True], ids=["graceful", "forced"])
@pytest.mark.parametrize("mode", ["", PER_STEP], ids=["pipeline", "per_step"])
def test_stop(world: World, mode: str, force: bool) -> None:
    """Both ways leave the same in ZenML."""
    left: list[Any] = []
    for environment in ({}, BY_ZENML):
        gate = world.gate(f"gate{len(left)}")
        assert world.submit(waiting(gate, mode), "--async").exit_code == 0
        run = world.runs()[-1]
        world.wait_until(lambda: world.runs()[-1].statuses, "the step runs")

        if force:
            done, loaded = modalrun(world, "stop", run.id, "--force", **environment)
        else:
            asked, loaded = modalrun(world, "stop", run.id, "--no-wait", **environment)
            assert asked.exit_code == 0, asked.stderr
            gate.open()
            done, _ = modalrun(world, "stop", run.id, **environment)

        assert done.exit_code == 0, done.stderr
        assert ("zenml" in loaded) == bool(environment)
        stopped = world.runs()[-1]
        stored = world.records.rows(
            "SELECT metadata.key, metadata.value, metadata.type FROM run_metadata AS metadata"
            " JOIN run_metadata_resource AS link ON link.run_metadata_id = metadata.id"
            f" WHERE link.resource_id = '{run.id.replace('-', '')}'"
            " AND metadata.key = 'modalrun_stop_requested' ORDER BY metadata.value"
        )
        left.append((stopped.status, stopped.reason, stopped.statuses, stored))
    assert left[0] == left[1]
    assert left[0][0] == "stopped"


def test_errors(world: World, proxy: Proxy) -> None:
    assert world.submit(DIAMOND).exit_code == 0
    run = world.only_run()

    lean, full = both(world, "status", "00000000-0000-4000-8000-000000000000")
    assert (lean.exit_code, lean.stderr) == (full.exit_code, full.stderr)
    assert lean.exit_code == 4

    proxy.trouble = Trouble("GET /api/v1/runs", 2)
    lean, _ = both(world, "status", run.id)
    assert lean.exit_code == 0
    assert "The ZenML server answers with status 500; trying again." in lean.stderr

    # What is not understood is left to ZenML's client.
    proxy.trouble = Trouble("GET /api/v1/runs", 1, 404)
    done, loaded = modalrun(world, "status", run.name)
    assert (done.exit_code, loaded) == (0, ["zenml"])
    proxy.trouble = None

    # The token of the last command is kept, and refused as well.
    revoke(world)
    lean, full = both(world, "status", run.id)
    assert (lean.exit_code, lean.stderr) == (full.exit_code, full.stderr)
    assert lean.exit_code == 3

    world.environment["ZENML_STORE_URL"] = f"http://127.0.0.1:{free_port()}"
    lean, full = both(world, "list")
    assert (lean.exit_code, lean.stderr) == (full.exit_code, full.stderr)
    assert lean.exit_code == 8


@pytest.mark.exhaustive
@pytest.mark.parametrize("environment", [{}, BY_ZENML], ids=["requests", "zenml"])
def test_a_service_account_stops_its_own_newest_run(
    world: World, environment: dict[str, str]
) -> None:
    assert world.servers is not None and world.place is not None
    api, name = world.servers.api(), f"{world.place.name}-colleague"
    colleague = api.post("/service_accounts", {"name": name, "active": True})["id"]
    made = api.post(f"/service_accounts/{colleague}/api_keys", {"name": name})
    other = {"ZENML_STORE_API_KEY": made["body"]["key"], **environment}
    assert world.submit(waiting(world.gate()), "--async").exit_code == 0
    world.wait_until(lambda: world.only_run().statuses, "the step runs")
    run = world.only_run()

    refused, _ = modalrun(world, "stop", **other)
    assert refused.exit_code == 2, refused.stderr
    words = " ".join(refused.stderr.split())
    assert f"submitted by {world.place.name}" in words and f"modalrun stop {run.id}" in words

    assert completed(world, "logs", "--step", "w") == ["wait"]
    assert completed(world, "list", "--pipeline", "w") == ["waiting"]

    stopped, loaded = modalrun(world, "stop", "--force", **environment)
    assert stopped.exit_code == 0, stopped.stderr
    assert ("zenml" in loaded) == bool(environment)
    assert world.only_run().status == "stopped"
