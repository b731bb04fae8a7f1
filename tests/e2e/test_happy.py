"""A run that goes well."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import Result, Run, World

pytestmark = pytest.mark.e2e

DIAMOND = "pipeline: diamond.diamond\ntarget: local\n"

READ_RUN = """
from zenml.client import Client
client = Client()
read = client.active_stack.artifact_store.open
(run,) = client.list_pipeline_runs().items
result = {
    "metadata": dict(run.run_metadata),
    "outputs": {
        f"{name}.{output}": artifact.load()
        for name, step in run.steps.items()
        for output, (artifact,) in step.outputs.items()
    },
    "logs": {
        name: [read(logs.uri, "r").read() for logs in step.log_collection if logs.source == "step"]
        for name, step in run.steps.items()
    },
    "stack": client.active_stack_model.name,
}
"""


def assert_shown(world: World, done: Result, run: Run) -> None:
    """The steps' output is on stdout, talk and summary on stderr, and control codes in neither."""
    assert "loaded 4 numbers\n" in done.stdout
    assert "joined 10 and 30\n" in done.stdout
    assert "load says this on stderr" in done.stderr
    assert "load says this on stderr" not in done.stdout
    assert run.id in done.stderr and run.id not in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    summary = done.stderr[done.stderr.index("step   state") :]
    for step in run.statuses:
        assert re.search(rf"^{step} +completed +(\d\.\d|\d\d) s +[wsi]*R+$", summary, re.M), summary
    assert re.search(rf"^Run completed\.\n +run +{run.id}\n", summary, re.M), summary
    assert re.search(r"^  output  both version \d+ \(dict\) of join$", summary, re.M), summary

    more = re.search(r"^ +logs +(modalrun .*)$", summary, re.M)
    assert more, summary
    logs = world.start(more[1].split()).finish()
    assert logs.exit_code == 0, logs.stderr
    assert "joined 10 and 30" in logs.stdout


def assert_sandbox(world: World, run: Run) -> None:
    """There is one sandbox, in the pipeline's app, known by the run id."""
    (sandbox,) = world.sandboxes()
    assert world.apps() == ["zenml-pipeline-diamond"]
    assert sandbox.app_name == "zenml-pipeline-diamond"
    assert sandbox.name == f"modalrun-{run.id}"
    assert sandbox.tags == {
        "modalrun-run": run.id,
        "modalrun-role": "run",
        "modalrun-pipeline": "diamond",
    }
    # Without a GPU the SDK uses its newer backend.
    assert len(sandbox.id) == len("sb-") + 26
    assert sandbox.timeout_secs == 21_600
    assert (sandbox.status, sandbox.exitcode) == (1, 0)


def assert_stored(world: World) -> None:
    """Artifacts, step logs and what is known of the sandbox can be read from ZenML."""
    (sandbox,) = world.sandboxes()
    stored = world.zenml(READ_RUN)
    assert stored["outputs"]["join.both"] == {"total": 10, "squares": 30}
    assert stored["outputs"]["load.numbers"] == [1, 2, 3, 4]
    assert "loaded 4 numbers" in "\n".join(stored["logs"]["load"])
    assert "joined 10 and 30" in "\n".join(stored["logs"]["join"])
    assert stored["metadata"]["modalrun_sandbox_id"] == sandbox.id
    assert stored["metadata"]["modalrun_app"] == "zenml-pipeline-diamond"
    assert stored["stack"] == world.stack


def test_a_diamond_runs_and_a_second_submit_finds_its_results_cached(world: World) -> None:
    world.serves_ahead = False
    config = world.zenml_config / "config.yaml"
    before = config.read_bytes()

    done = world.submit(DIAMOND)

    assert done.exit_code == 0, done.stderr
    run = world.only_run()
    assert run.status == "completed"
    assert [step.name for step in run.steps] == ["load", "left", "right", "join"]
    assert set(run.statuses.values()) == {"completed"}
    assert_shown(world, done, run)
    assert_sandbox(world, run)
    # Nothing of the user's has changed, and nothing lies around.
    assert config.read_bytes() == before
    assert not (world.project / ".zen").exists()
    assert [path.name for path in world.temporary.iterdir() if "modalrun" in path.name] == []
    assert_stored(world)

    again = world.submit(DIAMOND, "--async")

    assert again.exit_code == 0, again.stderr
    first, second = world.runs()
    assert second.id != first.id
    assert second.status == "completed"
    assert second.statuses == dict.fromkeys(["load", "left", "right", "join"], "cached")
    assert again.stdout == f"{second.id}\n"
    assert re.search(r"^load +cached", again.stderr, re.M)
    assert "Run completed: all steps cached; no sandbox was needed.\n" in again.stderr
    assert len(world.sandboxes()) == 1
    listed = world.start([sys.executable, "-m", "modalrun", "list", "--output", "json"]).finish()
    found = {run["id"]: run for run in json.loads(listed.stdout)["runs"]}[second.id]
    assert (found["mode"], found["target"]) == ("pipeline", "local")
    assert found["cost_estimate"] == "0.000000"

    partly = world.submit(DIAMOND, "--set", "steps.right.enable_cache=false")

    assert partly.exit_code == 0, partly.stderr
    third = world.runs()[2]
    assert third.status == "completed"
    # `load` and `left` are found before there is a sandbox, `join` in it: its new input is equal.
    assert [step.name for step in third.steps] == ["load", "left", "right", "join"]
    assert list(third.statuses.values()) == ["cached", "cached", "completed", "cached"]
    assert world.apps() == ["zenml-pipeline-diamond"]
    assert len({sandbox.app_id for sandbox in world.sandboxes()}) == 1
    assert len({sandbox.name for sandbox in world.sandboxes()}) == 2


@pytest.mark.exhaustive
def test_zenmls_variable_keeps_the_cache_from_being_asked_before_the_sandbox_is(
    world: World,
) -> None:
    prevented = {"ZENML_PREVENT_CLIENT_SIDE_CACHING": "true"}
    first, second = (world.submit(DIAMOND, **prevented) for _ in range(2))

    assert (first.exit_code, second.exit_code) == (0, 0), second.stderr
    assert set(world.runs()[1].statuses.values()) == {"cached"}
    assert "no sandbox was needed" not in second.stderr
    assert len(world.sandboxes()) == 2
