"""`status`, `list` and `reconcile` say what is true, from anywhere, whatever ZenML records."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.processes import outside, parent_of

if TYPE_CHECKING:
    from tests.world import Command, Result, World

pytestmark = pytest.mark.e2e

STEPS = ["load", "left", "right", "join"]


def start(world: World, *arguments: str, terminal: bool = False, **environment: str) -> Command:
    command = [sys.executable, "-m", "modalrun", *arguments]
    return world.start(command, terminal=terminal, **environment)


def run(world: World, *arguments: str, **environment: str) -> Result:
    return start(world, *arguments, **environment).finish()


def answer(done: Result) -> Any:
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def elsewhere(world: World) -> dict[str, str]:
    """Another home that has nothing but the address of ZenML's store, and the key to it."""
    home = world.root / "another-home"
    home.mkdir()
    variables = {
        "HOME": str(home),
        "ZENML_CONFIG_PATH": str(home / "zenml"),
        "MODALRUN_LOCAL_STATE": str(home / "state"),
    }
    if world.place is not None:
        return variables
    stores = world.zenml_config / "local_stores"
    return variables | {
        "ZENML_STORE_URL": f"sqlite:///{stores / 'default_zen_store' / 'zenml.db'}",
        "ZENML_LOCAL_STORES_PATH": str(stores),
    }


def completions(world: World, typed: str, **environment: str) -> list[str]:
    done = world.start(
        [sys.executable, "-c", "from modalrun.__main__ import main; main()"],
        _MODALRUN_COMPLETE="complete_bash",
        COMP_WORDS=f"modalrun status {typed}",
        COMP_CWORD="2",
        **environment,
    ).finish()
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.exhaustive
def test_a_finished_run_is_looked_at_in_many_ways(world: World) -> None:
    resources = "settings: {resources: {cpu_count: 2, memory: 2GiB}}"
    done = world.submit(f"pipeline: diamond.diamond\ntarget: local\n{resources}\n")
    assert done.exit_code == 0, done.stderr
    made = world.only_run()
    (sandbox,) = world.sandboxes()
    sandboxes_before = len(world.sandboxes())

    on_a_terminal = start(world, "status", terminal=True, NO_COLOR="1", COLUMNS="60").finish()
    assert on_a_terminal.exit_code == 0
    # While ZenML is imported there is a word on that, which goes away.
    waiting, _, shown = on_a_terminal.stdout.rpartition("\x1b[2K")
    assert "Reading the run ..." in waiting
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown.splitlines()]
    assert lines[0] == f"Run {made.name}"
    assert f"  id        {made.id}" in lines
    assert "  state     completed" in lines
    assert any(re.match(r"load +completed +\d+(?:\.\d)? s +2 cpu, 2048 MiB$", x) for x in lines)
    # Only an address is longer: it is to be copied.
    assert max(len(line) for line in lines if "://" not in line) <= 60

    prefix = answer(run(world, "status", made.id[:6], "--output", "json", **elsewhere(world)))
    assert (prefix["format"], prefix["version"]) == ("modalrun-status", 1)
    assert (prefix["id"], prefix["name"], prefix["pipeline"]) == (made.id, made.name, "diamond")
    assert (prefix["state"], prefix["over"], prefix["exit_code"]) == ("completed", True, 0)
    assert (prefix["mode"], prefix["target"]) == ("pipeline", "local")
    assert (prefix["stack"]["name"], len(prefix["stack"]["id"])) == (world.stack, 36)
    assert f"\n  stack    {world.stack}\n" in done.stderr
    assert prefix["sandbox"]["id"] == sandbox.id
    assert (prefix["sandbox"]["cpu"], prefix["sandbox"]["memory_mib"]) == (2, 2048)
    assert [(s["name"], s["state"], s["attempt"]) for s in prefix["steps"]] == [
        (name, "completed", 1) for name in STEPS
    ]
    assert 0 < prefix["duration"] < 90 and prefix["started"].endswith("Z")

    # A finished run needs no Modal: a token that can't be right makes no difference.
    wrong = {"MODAL_SERVER_URL": "http://127.0.0.1:1", "MODAL_TOKEN_ID": "ak-none"}
    watched = run(world, "status", made.name, "--watch", "--exit-status", **wrong)
    assert watched.exit_code == 0, watched.stderr
    assert "\x1b" not in watched.stdout
    assert re.search(r"^\d\d:\d\d:\d\d step join: completed$", watched.stdout, re.M)
    assert len(world.sandboxes()) == sandboxes_before

    unknown = run(world, "status", made.name[:-3])
    assert unknown.exit_code == 4
    assert made.id in unknown.stderr and made.name in unknown.stderr
    left_out = run(world, "status")
    assert left_out.exit_code == 2 and "RUN is missing" in left_out.stderr

    filters = ("--state", "completed", "--pipeline", "diamond", "--since", "1h", "--limit", "5")
    found = answer(run(world, "list", *filters, "--output", "json"))
    assert (found["format"], found["version"]) == ("modalrun-list", 1)
    (listed,) = found["runs"]
    assert {name: listed[name] for name in ("id", "state", "mode", "target")} == {
        "id": made.id,
        "state": "completed",
        "mode": "pipeline",
        "target": "local",
    }
    assert listed["cost_estimate"] == "0.000000"
    assert listed["stack"] == prefix["stack"]

    assert completions(world, "dia") == [made.name]
    assert made.id in completions(world, made.id[:3])
    assert completions(world, "", ZENML_STORE_URL="http://127.0.0.1:1") == ["latest"]


def test_a_run_whose_sandbox_is_gone_is_lost_until_it_is_reconciled(world: World) -> None:
    spec = f"pipeline: waiting.waiting\ntarget: local\nparameters: {{gate: {world.gate()}}}\n"
    submitted = world.popen(spec)
    line = submitted.stdout.wait_for("waiting in")
    (sandbox,) = world.sandboxes()
    runner = outside(sandbox.id, int(re.findall(r"\d+", line)[1]))
    supervisor = parent_of(runner)
    made = world.only_run()
    # Nobody is left who could record the end.
    submitted.signal(signal.SIGKILL)
    submitted.process.wait()

    alive = run(world, "reconcile", "latest")
    assert alive.exit_code == 0, alive.stderr
    assert "the record is right" in alive.stderr
    assert world.only_run().status == "running"
    # From another machine, the sandboxes of this one's local server can't be seen.
    unseen = run(world, "status", made.id, "--exit-status", **elsewhere(world))
    assert unseen.exit_code == 8
    assert "could not be checked" in unseen.stdout and "state     running" in unseen.stdout
    assert not (world.root / "another-home" / "state").exists()

    watching = start(world, "status", made.id[:8], "--watch", "--exit-status")
    watching.stdout.wait_for("step wait: running")
    os.kill(supervisor, signal.SIGKILL)
    os.kill(runner, signal.SIGKILL)

    watched = watching.finish()
    assert watched.exit_code == 7, watched.stderr
    assert re.search(rf"^\d\d:\d\d:\d\d run {made.name}: lost$", watched.stdout, re.M)
    assert "lost (ZenML says 'running')" in watched.stdout
    assert f"modalrun reconcile {made.id}" in watched.stdout

    settled = run(world, "reconcile", made.name)
    assert settled.exit_code == 0, settled.stderr
    assert "now recorded as 'failed'" in settled.stderr
    after = world.only_run()
    assert (after.status, after.statuses) == ("failed", {"wait": "failed"})

    done = run(world, "status", made.id, "--output", "json", "--exit-status")
    assert done.exit_code == 7
    seen = answer(done)
    assert (seen["state"], seen["sandbox"]["exit_code"], seen["notes"]) == ("failed", 137, [])
    assert [(step["name"], step["state"]) for step in seen["steps"]] == [
        ("wait", "failed"),
        ("afterwards", "not run"),
    ]
    assert "reconcile" in seen["steps"][0]["exit_reason"]


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_who_looks_on_follows_the_run_into_the_sandbox_of_its_next_driver(world: World) -> None:
    gate = world.gate()
    spec = "pipeline: waiting.waiting\ntarget: local\nsettings: {orchestrator: {mode: per_step}}\n"
    done = world.submit(f"{spec}parameters: {{gate: {gate}}}\n", "--async")
    assert done.exit_code == 0, done.stderr
    run_id = done.stdout.strip()
    lines = world.modalrun("logs", "--follow", run_id)
    watching = world.modalrun("status", "--watch", "--exit-status", run_id)
    lines.stdout.wait_for("wait | waiting in")
    watching.stdout.wait_for("step wait: running")
    (driver,) = (box for box in world.sandboxes() if box.tags["modalrun-role"] == "run")

    assert world.modal("container", "stop", "--yes", driver.task_id).exit_code == 0
    lines.stderr.wait_for("The run's driver is gone; waiting for another one")
    watching.stdout.wait_for(": lost")
    resumed = run(world, "resume", run_id, "--async", "--source-root", str(world.project))
    assert resumed.exit_code == 0, resumed.stderr
    gate.open()

    seen = lines.finish()
    assert seen.exit_code == 0, seen.stderr
    assert "Another driver has taken over." in seen.stderr
    own = re.findall(r"^.* \| (?:waiting in|the gate|afterwards:).*$", seen.stdout, re.M)
    assert [re.sub(r"\d+", "N", line) for line in own] == [
        "wait | waiting in N below N",
        "wait | the gate is open",
        "afterwards | afterwards: through",
    ]
    assert len(re.findall(r"^.* \| Step .* has finished", seen.stdout, re.M)) == 2, seen.stdout
    view = watching.finish()
    assert view.exit_code == 0, view.stderr
    assert "step afterwards: completed" in view.stdout
    assert re.search(r"^  state +completed$", view.stdout, re.M)


REGISTER = """
from zenml.client import Client
from zenml.enums import StackComponentType as Kind
client = Client()
client.create_flavor("modalrun.flavor.ModalrunOrchestratorFlavor", Kind.ORCHESTRATOR)
token = {{"token_id": {id!r}, "token_secret": {secret!r}}}
client.create_stack_component("account", "modalrun", Kind.ORCHESTRATOR, token)
client.create_stack("account", {{Kind.ORCHESTRATOR: "account", Kind.ARTIFACT_STORE: "default"}})
result = None
"""

ON_MODAL = """
from uuid import UUID
from zenml.client import Client
from zenml.orchestrators.publish_utils import publish_pipeline_run_metadata
component = Client().active_stack.orchestrator.id
publish_pipeline_run_metadata(UUID({run!r}), {{component: {{"modalrun_target": "modal"}}}})
result = None
"""


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_who_looks_on_uses_the_token_of_the_runs_orchestrator(world: World) -> None:
    account = world.server()
    token = {"id": account["MODAL_TOKEN_ID"], "secret": account["MODAL_TOKEN_SECRET"]}
    world.zenml(REGISTER.format(**token))
    gate = world.gate()
    spec = f"pipeline: waiting.waiting\ntarget: local\nparameters: {{gate: {gate}}}\n"
    done = world.submit(f"{spec}stack: account\n", "--async")
    assert done.exit_code == 0, done.stderr
    world.wait_until(lambda: world.only_run().steps, "the step runs")
    made = world.only_run()
    # From here on the local Modal server stands for Modal's cloud.
    world.zenml(ON_MODAL.format(run=made.id))
    # Modal's own configuration is for another workspace, whose token this server refuses.
    other = account | {"MODAL_TOKEN_ID": "ak-other", "MODAL_TOKEN_SECRET": "as-other"}

    seen = run(world, "status", made.name, **other)
    assert "not checked" not in seen.stdout and ", running" in seen.stdout, seen.stdout
    lines = run(world, "logs", made.name, "--tail", "1000", **other)
    assert "wait | waiting in" in lines.stdout, lines.stderr
    right = run(world, "reconcile", made.name, **other)
    assert "the record is right" in right.stderr, right.stderr
    stopped = run(world, "stop", made.name, "--force", **other)
    assert stopped.exit_code == 0, stopped.stderr
