"""Submissions without ZenML's own client leave the same records as those with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.world import Result, World

pytestmark = pytest.mark.e2e

NOT_COMPILED = "Nothing has changed since the pipeline was compiled"
SPEC = "pipeline: telling_variables.telling_variables\ntarget: local\n"
VARYING = {"id", "created", "updated", "start_time", "end_time", "time", "name", "index", "uri"} | {
    "orchestrator_run_id",
    "modalrun_sandbox_id",
    "modalrun_requested",
    "modalrun_created",
    "pipeline_run_id",
    "step_run_id",
    "snapshot_id",
    "latest_run_id",
    "source_snapshot_id",
    "in_progress",
    "log_id",
    "latest_heartbeat",
}
"""What differs between any two runs."""


@pytest.fixture
def forge() -> None:
    """Every command starts cold: a warm one has ZenML in memory."""


@pytest.fixture
def world(world: World) -> World:
    """A world whose commands may be kept from importing ZenML."""
    without = world.root / "without-zenml"
    without.mkdir()
    # The same in every command: it is a part of what a submission is known by.
    world.environment["PYTHONPATH"] = str(without)
    return world


class ZenMLRefused:
    """Keep commands from importing ZenML."""

    def __init__(self, world: World) -> None:
        self._file = world.root / "without-zenml" / "zenml.py"

    def __enter__(self) -> None:
        self._file.write_text("raise ImportError('ZenML is imported')\n")

    def __exit__(self, *error: object) -> None:
        self._file.unlink()


def spec_of(world: World, more: str = "") -> Path:
    told = world.root / "told"
    told.mkdir(exist_ok=True)
    return world.spec(f"{SPEC}parameters: {{folder: {told}}}\n{more}")


def submit(world: World, spec: Path, *arguments: str, **environment: str) -> Result:
    done = world.submit(spec, "--async", *arguments, **environment)
    assert done.exit_code == 0, done.stderr
    run_id = done.stdout.strip()
    told = world.root / "told" / f"{run_id}.json"
    world.wait_until(told.exists, f"the step of {run_id} has told")
    world.wait_until(
        lambda: {run.id: run.status for run in world.runs()}[run_id] == "completed",
        f"{run_id} is recorded as completed",
    )
    return done


def steady(value: Any, at: str = "") -> dict[str, Any]:
    """The values of a record by their places, without what differs between any two runs."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, str):
        value = re.sub(r"/sb-\w+/|/\.modalrun-\w+/", "/", value)
    if not isinstance(value, dict):
        return {at: value}
    found: dict[str, Any] = {}
    for name, one in value.items():
        if name not in VARYING:
            found |= steady(one, f"{at}.{name}")
    return found


def records(world: World, done: Result) -> dict[str, Any]:
    """Everything that the server has of a run."""
    assert world.servers is not None
    api, run_id = world.servers.api(), done.stdout.strip()
    run = api.get(f"/runs/{run_id}")
    snapshot = api.get(f"/pipeline_snapshots/{run['resources']['snapshot']['id']}")
    steps = api.items(
        "/steps", pipeline_run_id=run_id, project=str(world.place and world.place.project)
    )
    told = json.loads((world.root / "told" / f"{run_id}.json").read_text())
    assert told["claims"]["pipeline_run_id"] == run_id == told.pop("run")
    # Without a configuration of its own, each command invents a user id for statistics.
    told["variables"].pop("ZENML_USER_ID")
    told["claims"] = sorted(told["claims"])
    return {
        **steady(run, "run"),
        **steady(snapshot, "snapshot"),
        **steady(steps, "steps"),
        **steady(told, "sandbox"),
    }


def differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    places = first.keys() | second.keys()
    return {p: (first.get(p), second.get(p)) for p in places if first.get(p) != second.get(p)}


def test_a_run_spec_that_was_compiled_before(world: World) -> None:
    spec = spec_of(world)
    first = submit(world, spec)
    assert NOT_COMPILED not in first.stderr

    with ZenMLRefused(world):
        second = submit(world, spec)

    assert NOT_COMPILED in second.stderr
    assert differences(records(world, first), records(world, second)) == {}


@pytest.mark.exhaustive
def test_a_deployment_file(world: World) -> None:
    spec, file = spec_of(world), world.root / "project" / "deployment.json"
    compiled = world.start(
        ["python", "-m", "modalrun", "compile", str(spec), "-o", str(file)], cwd=world.project
    ).finish()
    assert compiled.exit_code == 0, compiled.stderr
    options = ("--target", "local", "--timeout", "20m")
    # ZenML's own client registers the pipeline.
    with_client = submit(world, file, *options)

    world.environment["HOME"] = str(world.elsewhere)
    with ZenMLRefused(world):
        without = submit(world, file, *options)

    assert differences(records(world, without), records(world, with_client)) == {}


@pytest.mark.exhaustive
def test_a_stored_snapshot(world: World) -> None:
    spec = spec_of(world)
    submit(world, spec)
    assert world.servers is not None
    api = world.servers.api()
    run = api.get(f"/runs/{world.only_run().id}")
    snapshot = run["resources"]["snapshot"]["id"]
    stored = world.spec(f"deployment: {snapshot}\ntarget: local\n", "stored.yaml")
    with_client = submit(world, stored)
    with ZenMLRefused(world):
        without = submit(world, stored)
    assert differences(records(world, without), records(world, with_client)) == {}


@pytest.mark.exhaustive
def test_changes_are_compiled(world: World) -> None:
    assert world.servers is not None and world.place is not None
    spec, api = spec_of(world), world.servers.api()
    submit(world, spec)

    code = world.project / "telling_variables.py"
    code.write_text(f"{code.read_text()}\nSOMETHING = 1\n")
    assert NOT_COMPILED not in submit(world, spec).stderr, "the source tree has changed"

    assert NOT_COMPILED in submit(world, spec).stderr
    assert NOT_COMPILED not in submit(world, spec, "--fresh").stderr
    assert NOT_COMPILED not in submit(world, spec, SOMETHING="else").stderr

    api.put(f"/stacks/{world.place.stack}", {"name": f"{world.place.name}-2"})
    assert NOT_COMPILED not in submit(world, spec).stderr, "the stack has changed"
    assert NOT_COMPILED in submit(world, spec).stderr

    newest = world.runs()[-1].id
    used = api.get(f"/runs/{newest}")["resources"]["snapshot"]["id"]
    api.delete(f"/pipeline_snapshots/{used}")
    assert NOT_COMPILED not in submit(world, spec).stderr, "the snapshot is gone"


@pytest.mark.exhaustive
def test_refusals_are_those_of_zenmls_client(world: World) -> None:
    assert world.place is not None
    spec, file = spec_of(world), world.root / "project" / "deployment.json"
    compiled = world.start(
        ["python", "-m", "modalrun", "compile", str(spec), "-o", str(file)], cwd=world.project
    ).finish()
    assert compiled.exit_code == 0, compiled.stderr
    submit(world, file, "--target", "local", "--name", "only-once")

    twice = world.submit(file, "--async", "--target", "local", "--name", "only-once")
    assert twice.exit_code == 2
    assert "has a run named 'only-once' already" in twice.stderr

    wrong = world.place.key[:-4] + "AAA="
    refused = world.submit(file, "--async", "--target", "local", ZENML_STORE_API_KEY=wrong)
    assert refused.exit_code == 3, refused.stderr
    nowhere = "http://127.0.0.1:9"
    lost = world.submit(file, "--async", "--target", "local", ZENML_STORE_URL=nowhere)
    assert lost.exit_code == 8, lost.stderr
    assert f"The ZenML server at {nowhere} can't be reached" in lost.stderr
    assert len(world.runs()) == 1
