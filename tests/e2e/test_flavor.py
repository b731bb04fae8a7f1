"""modalrun as an orchestrator of a ZenML stack: ZenML's own commands and scripts."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.world import Command, World

pytestmark = pytest.mark.e2e

REGISTER = (
    "zenml orchestrator flavor register modalrun.flavor.ModalrunOrchestratorFlavor",
    "zenml orchestrator register modal_orch --flavor=modalrun --synchronous=true --target=local"
    " --modal_environment=dev --gpu=T4",
    "zenml stack register modal_stack -o modal_orch -a default --set",
)

ON_MODAL = """
from zenml.client import Client
from zenml.config.schedule import Schedule
from zenml.enums import StackComponentType as Kind
import flavored
client = Client()
def message(action):
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
def run():
    flavored.flavored()
def schedule():
    flavored.flavored.with_options(schedule=Schedule(cron_expression="* * * * *"))()
result = {"scheduled": message(schedule)}
orchestrator = client.create_stack_component("cloud", "modalrun", Kind.ORCHESTRATOR, {})
client.create_stack("cloud", {Kind.ORCHESTRATOR: "cloud", Kind.ARTIFACT_STORE: "default"})
client.activate_stack("cloud")
result["run"] = message(run)
first = client.list_pipeline_runs(sort_by="created", hydrate=True)[0]
result["metadata"] = {key: str(value) for key, value in first.run_metadata.items()}
"""


COMMANDS = """
import sys
from modalrun import cli
from zenml.cli.cli import cli as zenml
for line in sys.argv[1:]:
    print("$", line, file=sys.stderr, flush=True)
    program, *arguments = line.split()
    if program == "modalrun":
        print("exit code", cli.run(arguments), file=sys.stderr, flush=True)
    else:
        zenml(arguments, standalone_mode=False)
"""


def commands(world: World, *lines: str, **environment: str) -> list[str]:
    """Run commands in the project, in one process to save time; returns what each has said."""
    done = script(world, "-c", COMMANDS, *lines, **environment).finish()
    assert done.exit_code == 0, done.stdout + done.stderr
    return done.stderr.split("$ ")[1:]


def register(world: World) -> None:
    """Register a stack, and create the Modal environment that it names."""
    commands(world, *REGISTER)
    assert world.modal("environment", "create", "dev").exit_code == 0


def script(world: World, *arguments: str, **environment: str) -> Command:
    """Start a script of the project, with the stack that was set last."""
    if world.place is not None:
        # The world's own stack, which its environment names, would be in the way.
        environment = {"ZENML_ACTIVE_STACK_ID": "", **environment}
    return world.start([sys.executable, *arguments], cwd=world.project, **environment)


@pytest.mark.local_store("tests/realserver/test_registered_stack.py is its counterpart there")
def test_a_registered_stack_runs_scripts_in_both_modes(world: World) -> None:
    register(world)

    done = script(world, "flavored.py", "pipeline").finish()

    assert done.exit_code == 0, done.stdout + done.stderr
    assert "load | loaded 4\n" in done.stdout
    assert "double | doubling in the run sandbox\n" in done.stdout
    assert "ended as completed" in done.stdout
    assert "Run completed.\n" in done.stderr
    (box,) = world.sandboxes()
    run = world.only_run()
    assert (run.status, run.stack) == ("completed", "modal_stack")
    assert box.name == f"modalrun-{run.id}"
    assert box.timeout_secs == 300
    assert "T4" in json.dumps(vars(box))

    cached = script(world, "flavored.py", "per_step").finish()

    assert cached.exit_code == 0, cached.stderr
    assert len(world.sandboxes()) == 1
    run = world.runs()[1]
    assert run.statuses == {"load": "cached", "double": "cached"}
    shown = world.start([sys.executable, "-m", "modalrun", "status", run.id]).finish()
    assert re.search(r"^ *mode +per_step\n *target +local, environment dev$", shown.stdout, re.M)

    failed = script(world, "flavored.py", "per_step", "wrong").finish()

    assert failed.exit_code == 1
    # What ZenML's cache has is recorded before there is a sandbox.
    assert world.runs()[2].statuses == {"load": "cached", "double": "failed"}
    assert world.runs()[2].status == "failed"
    assert "double | doubling in double\n" in failed.stdout
    assert "double: ValueError: as asked" in failed.stderr
    told = " ".join((failed.stdout + failed.stderr).split())
    assert f"RunFailedError: Run failed: double. See 'modalrun logs {world.runs()[2].id}'" in told

    rerun = [sys.executable, "-m", "modalrun", "rerun", world.runs()[2].id, "--new-code"]
    told = " ".join(world.start(rerun, cwd=world.project).finish().stderr.split())
    assert "'modalrun submit flavored:flavored --target local'" in told

    refused = world.zenml(f"import sys; sys.path.insert(0, {str(world.project)!r})\n{ON_MODAL}")
    assert "does not support scheduling" in refused["scheduled"]
    assert "StackValidationError" in refused["run"]
    # All that is in the way, at once.
    assert "records are in a database on this machine" in refused["run"]
    assert "artifact store 'default' (local) keeps its files on this machine" in refused["run"]
    assert len(world.runs()) == 3
    assert refused["metadata"]["modalrun_sandbox_id"] == box.id
    assert refused["metadata"]["modalrun_environment"] == "dev"


@pytest.mark.exhaustive
def test_init_makes_a_stack_whose_runs_zenmls_commands_look_at_and_stop(world: World) -> None:
    init = "modalrun init flavored.flavored --target"
    refused, first, second, _ = commands(
        world, f"{init} modal", f"{init} local", f"{init} local", "zenml stack set modalrun_local"
    )
    assert "exit code 2" in refused
    assert "Nothing was registered." in refused
    assert "exit code 0" in first
    assert len(re.findall(r"^\+ ", first, re.M)) == 4, first
    undo = re.findall(r"^  (zenml .*)$", first.partition("To undo")[2], re.M)
    assert len(undo) == 4
    assert "exit code 0" in second
    assert "+ " not in second, second
    assert "undo" not in second
    for told in (first, second):
        following = re.findall(r"^  \w.* {2,}(\w+ .*)$", told.partition("do now:")[2], re.M)
        assert following[:3] == [
            "modalrun submit modalrun.yaml",
            "zenml stack set modalrun_local",
            "python flavored.py",
        ], told
    assert "pipeline: flavored.flavored\n" in (world.project / "modalrun.yaml").read_text()

    gate = world.gate()
    done = script(world, "flavored.py", "per_step", str(gate), "async").finish()
    assert done.exit_code == 0, done.stderr
    assert "Run accepted; it continues without this command.\n" in done.stderr
    assert not re.search("ended as (completed|failed)", done.stdout)
    world.wait_until(lambda: "double" in world.only_run().statuses, "the second step runs")
    run = world.only_run()
    commands(
        world,
        "zenml stack set default",
        f"zenml pipeline runs refresh {run.id} --include-steps",
        f"zenml pipeline runs stop {run.id} -y",
    )
    run = world.only_run()
    assert (run.status, run.statuses) == ("stopped", {"load": "completed", "double": "stopped"})
    assert all(box.finished_at for box in world.sandboxes())

    commands(world, "zenml stack set modalrun_local")
    (world.project / "plain.py").write_text("from diamond import diamond\n\ndiamond()\n")
    done = script(world, "plain.py").finish()
    assert "Run completed.\n" in done.stderr
    assert "note:" not in done.stderr, "neither code nor stack has any setting"
    commands(world, *undo)


@pytest.mark.exhaustive
def test_ctrl_c_leaves_a_run_and_a_refresh_finds_that_its_sandbox_is_gone(world: World) -> None:
    register(world)
    command = script(world, "flavored.py", "pipeline", str(world.gate()))
    command.stdout.wait_for("doubling in")
    command.signal(signal.SIGINT)
    left = command.finish()
    # Neither a terminal nor CI: as with ZenML's other orchestrators the run continues.
    assert left.exit_code == 130, left.stderr
    assert "Traceback" not in left.stderr
    run = world.only_run()
    assert f"The run {run.id} continues in its sandbox." in left.stderr
    assert left.stderr.splitlines()[-1].endswith(f"modalrun stop {run.id}")
    assert f"modalrun logs --follow {run.id}" in left.stderr

    (box,) = world.sandboxes()
    world.modal("container", "stop", "--yes", box.task_id)
    world.wait_until(lambda: world.sandboxes()[0].finished_at, "the sandbox has ended")
    # ZenML alone would never notice.
    commands(world, f"zenml pipeline runs refresh {run.id} --include-steps")
    assert (world.only_run().status, world.only_run().statuses["double"]) == ("failed", "failed")


@pytest.mark.exhaustive
def test_a_run_whose_submission_was_not_answered_keeps_its_record(world: World) -> None:
    register(world)
    rules = [
        {"rpc": "SandboxCreate*", "action": "lose_answer", "times": None},
        {"rpc": "SandboxGetFromName*", "action": "error", "times": None},
    ]
    (world.state / "faults.json").write_text(json.dumps(rules))

    left = script(world, "flavored.py", "pipeline").finish()

    assert left.exit_code == 1
    told = " ".join((left.stdout + left.stderr).split())
    assert "UnknownOutcomeError: The connection to Modal was lost while" in told
    # ZenML would have recorded a failure, for good, of a run whose sandbox continues.
    world.wait_until(lambda: world.only_run().status == "completed", "the run completes by itself")


@pytest.mark.exhaustive
@pytest.mark.local_store("the stack is registered here")
def test_a_refusal_names_the_failed_run_and_the_orchestrator(world: World) -> None:
    register(world)
    for update, problem in (
        ('--secrets=["absent"]', "Secret 'absent' not found on the local Modal server."),
        ('--secrets=[] --source_include=["absent"]', f"nothing of that name in {world.project}."),
    ):
        commands(world, f"zenml orchestrator update modal_orch {update}")
        refused = script(world, "flavored.py", "pipeline").finish()
        run = world.runs()[-1]
        told = " ".join(refused.stderr.split())
        assert problem in told
        assert f" The run {run.id} is recorded as failed. " in told
        assert "Nothing was created" not in told
        assert (refused.exit_code, run.status) == (1, "failed")
    assert "stack: zenml orchestrator update modal_orch --source_include='[]'." in told


UPSTREAM = """
import os
os.environ["ZENML_SKIP_STACK_VALIDATION"] = "true"
from zenml.client import Client
from zenml.config import DockerSettings
from zenml.enums import StackComponentType as Kind
import flavored
client = Client()
parts = {
    Kind.ORCHESTRATOR: ("modal", {"gpu": "T4"}),
    Kind.CONTAINER_REGISTRY: ("default", {"uri": "registry.example/team"}),
}
for kind, (flavor, values) in parts.items():
    client.create_stack_component("upstream", flavor, kind, values)
names = {kind: "upstream" for kind in parts} | {Kind.ARTIFACT_STORE: "default"}
stack = client.create_stack("upstream", names)
client.activate_stack("upstream")
finished = DockerSettings(skip_build=True, parent_image="registry.example/team/image:1")
compiled = flavored.flavored.with_options(
    settings={"docker": finished, "orchestrator": {"timeout": 250}}
).create_snapshot("for-upstream")
client.activate_stack("default")
# Its package is not installed, and not needed.
client.create_stack_component("k8s", "kubernetes", Kind.ORCHESTRATOR, {"kubernetes_context": "no"})
client.create_stack("k8s", {Kind.ORCHESTRATOR: "k8s", Kind.ARTIFACT_STORE: "default"})
result = str(compiled.id)
"""


def stacks(world: World) -> list[list[Any]]:
    """All that ZenML stores of stacks, and which one is active."""
    database = world.zenml_config / "local_stores" / "default_zen_store" / "zenml.db"
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        rows = [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in ("stack", "stack_component", "stack_composition", "flavor")
        ]
    return [*rows, [(world.zenml_config / "config.yaml").read_text()]]


@pytest.mark.exhaustive
@pytest.mark.local_store("it compares the files of the database")
@pytest.mark.timeout(600)
def test_any_stack_is_used_without_being_changed(world: World) -> None:
    snapshot = world.zenml(
        f"import sys; sys.path.insert(0, {str(world.project)!r})\n"
        "from zenml.utils import source_utils\n"
        f"source_utils.set_custom_source_root({str(world.project)!r})\n{UPSTREAM}"
    )
    before = stacks(world)

    done = world.submit(f"deployment: {snapshot}\ntarget: local\n", "--mode", "per_step")

    assert done.exit_code == 0, done.stderr
    assert (world.only_run().status, world.only_run().stack) == ("completed", "upstream")
    driver, *steps = world.sandboxes()
    assert len(steps) == 2
    assert {box.timeout_secs for box in (driver, *steps)} == {250}
    assert all("T4" in json.dumps(vars(box)) for box in steps)

    other = world.submit("pipeline: flavored.flavored\nstack: k8s\ntarget: local\n", "--no-cache")

    assert other.exit_code == 0, other.stderr
    assert (world.runs()[1].status, world.runs()[1].stack) == ("completed", "k8s")
    assert world.sandboxes()[-1].timeout_secs == 300
    assert stacks(world) == before
