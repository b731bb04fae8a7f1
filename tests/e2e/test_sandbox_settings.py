"""Every setting, from YAML, decorator or flag to the arguments that the server received."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.world import Result, World

pytestmark = pytest.mark.e2e


TOKEN = "not-to-be-seen-anywhere"

EVERYTHING = """
pipeline: sandboxes.plain
target: local
modal:
  workspace: some-team
  secrets: [for-tests]
settings:
  orchestrator:
    gpu: [A100-80GB, H100]
    region: [us-east, eu]
    cloud: gcp
    modal_environment: staging
    app_name: my-app
    mode: pipeline
    max_parallelism: 2
    timeout: 700
    synchronous: true
    volumes: {data: /data}
    cpu_limit: 4
    memory_limit: 4GiB
  resources:
    cpu_count: 1.5
    memory: 3GiB
    gpu_count: 2
"""


def modalrun(world: World, *arguments: str) -> Result:
    return world.start([sys.executable, "-m", "modalrun", *arguments]).finish()


def plan(world: World, text: str, *arguments: str) -> dict[str, Any]:
    done = modalrun(world, "plan", str(world.spec(text)), "--output", "json", *arguments)
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def make_all_that_is_named(world: World) -> None:
    """The secret, the volumes and the environments that the specs here name."""
    code = (
        "import modal\n"
        "for name in 'staging', 'dev':\n"
        "    modal.Environment.objects.create(name)\n"
        "    modal.Volume.objects.create('data', environment_name=name)\n"
        f"modal.Secret.objects.create('for-tests', {{'TOKEN_FOR_TESTS': {TOKEN!r}}},"
        " environment_name='staging')\n"
    )
    done = world.start([sys.executable, "-c", code], **world.server()).finish()
    assert done.exit_code == 0, done.stderr


def assert_everything_arrived(world: World, done: Result) -> None:
    assert done.exit_code == 0, done.stderr
    assert f"secret {len(TOKEN)} characters" in done.stdout
    (sandbox,) = world.sandboxes()
    assert (sandbox.gpu, sandbox.gpu_count) == ("A100-80GB", 2)
    assert sandbox.regions == ["us-east", "eu"]
    assert sandbox.cloud == "gcp"
    assert sandbox.environment == "staging"
    assert sandbox.app_name == "my-app"
    assert sandbox.timeout_secs == 700
    assert sandbox.volumes == {"/data": "data"}
    assert (sandbox.milli_cpu, sandbox.milli_cpu_max) == (1500, 4000)
    assert (sandbox.memory_mb, sandbox.memory_mb_max) == (3072, 4096)
    assert {"TOKEN_FOR_TESTS", "MODALRUN_MAX_PARALLELISM"} <= set(sandbox.variables)
    shown = [done.stdout, done.stderr, str(vars(sandbox)), *world.processes().values()]
    assert not any(TOKEN in text for text in shown)


def test_from_yaml(world: World) -> None:
    make_all_that_is_named(world)
    assert_everything_arrived(world, world.submit(EVERYTHING))


@pytest.mark.exhaustive
def test_from_decorators(world: World) -> None:
    make_all_that_is_named(world)
    done = world.submit("pipeline: sandboxes.decorated\ntarget: local\n")
    assert_everything_arrived(world, done)


@pytest.mark.exhaustive
def test_from_the_command_line_above_both(world: World) -> None:
    make_all_that_is_named(world)
    done = world.submit(
        EVERYTHING.replace("sandboxes.plain", "sandboxes.decorated"),
        *("--gpu", "T4", "--cpu", "2", "--memory", "1GB", "--timeout", "400", "--cloud", "aws"),
        *("--region", "us-west", "--env", "dev", "--max-parallelism", "3", "--no-cache"),
        *("--name", "named-{time}", "--sync", "--mode", "pipeline"),
        *("--set", "settings.orchestrator.secrets=[]", "--set", "settings.resources.gpu_count=1"),
        *("--set", "settings.orchestrator.memory_limit=8GiB"),
    )
    assert done.exit_code == 0, done.stderr
    (sandbox,) = world.sandboxes()
    assert (sandbox.gpu, sandbox.gpu_count, sandbox.cloud) == ("T4", 1, "aws")
    assert (sandbox.milli_cpu, sandbox.memory_mb, sandbox.memory_mb_max) == (2000, 954, 8192)
    assert (sandbox.timeout_secs, sandbox.regions) == (400, ["us-west"])
    assert (sandbox.environment, sandbox.app_name) == ("dev", "my-app")
    assert world.only_run().name.startswith("named-")


@pytest.mark.exhaustive
def test_settings_for_zenmls_own_flavors_are_understood(world: World) -> None:
    done = world.submit("pipeline: sandboxes.of_zenmls_flavor\ntarget: local\n")
    assert done.exit_code == 0, done.stderr
    (sandbox,) = world.sandboxes()
    assert (sandbox.gpu, sandbox.regions, sandbox.timeout_secs) == ("T4", ["eu"], 300)
    assert sandbox.memory_mb == 1024
    assert "'orchestrator.modal', written for ZenML's own Modal flavor" in done.stderr
    assert "'step_operator.modal', written for ZenML's own Modal flavor" in done.stderr


def test_another_gpu_when_there_is_none_of_the_first(world: World) -> None:
    world.server()
    rule = {"rpc": "SandboxCreate", "action": "error", "status": "RESOURCE_EXHAUSTED"}
    (world.state / "faults.json").write_text(json.dumps([rule]))
    done = world.submit("pipeline: sandboxes.plain\ntarget: local\n", "--gpu", "H100:2,A100,T4")
    assert done.exit_code == 0, done.stderr
    (sandbox,) = world.sandboxes()
    assert (sandbox.gpu, sandbox.gpu_count) == ("A100", 1)
    assert "Modal has no H100:2 now; asking for A100 instead" in done.stderr


@pytest.mark.exhaustive
def test_no_gpu_at_all(world: World) -> None:
    world.server()
    rule = {"rpc": "SandboxCreate", "action": "error", "status": "RESOURCE_EXHAUSTED", "times": 9}
    (world.state / "faults.json").write_text(json.dumps([rule]))
    done = world.submit("pipeline: sandboxes.plain\ntarget: local\n", "--gpu", "H100,A100")
    assert done.exit_code == 5
    assert world.only_run().status == "failed"


@pytest.mark.parametrize(
    ("named", "command"),
    [
        ("volumes: {no-such: /data}", "modal volume create no-such"),
        pytest.param(
            "secrets: [no-such]",
            "modal secret create no-such NAME=value",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            "environment: no-such", "modal environment create no-such", marks=pytest.mark.exhaustive
        ),
    ],
)
def test_what_nobody_made_on_modal(world: World, named: str, command: str) -> None:
    done = world.submit(f"pipeline: sandboxes.plain\ntarget: local\nmodal: {{{named}}}\n")
    assert done.exit_code == 4
    told = " ".join(done.stderr.split())
    assert "'no-such' not found" in told and "Nothing was created." in told
    assert f'eval "$(modalrun local env)"; {command}' in told
    assert world.runs() == []
    # What the message says helps.
    assert world.modal(*command.split()[1:]).exit_code == 0
    done = world.submit(f"pipeline: sandboxes.plain\ntarget: local\nmodal: {{{named}}}\n")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    "name", ["mine:v2", pytest.param("im-01ABC", marks=pytest.mark.exhaustive)]
)
def test_an_image_that_nobody_published(world: World, name: str) -> None:
    done = world.submit(f"pipeline: sandboxes.plain\ntarget: local\nimage: {{name: '{name}'}}\n")
    assert done.exit_code == 4
    assert "Nothing was created." in done.stderr and "docs/images.md" in done.stderr
    assert name in done.stderr
    assert world.runs() == []


@pytest.mark.exhaustive
def test_all_that_nobody_made_on_modal_is_named_at_once(world: World) -> None:
    named = "image: {name: four}\nmodal: {secrets: [one, two], volumes: {three: /data}}\n"
    done = world.submit(f"pipeline: sandboxes.plain\ntarget: local\n{named}")
    assert done.exit_code == 4
    told = " ".join(done.stderr.split())
    assert all(
        f"'{name}' not found" in told for name in ("one", "two", "three", "main/four:latest")
    )
    assert "modal secret create two NAME=value --env main; modal volume create three" in told


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--gpu", "H100", "--max-cost", "5"], 10, "can cost up to"),
        (["--max-cost", "much"], 2, "not an amount"),
        pytest.param(
            ["--gpu", "Z900", "--max-cost", "5"], 10, "Z900", marks=pytest.mark.exhaustive
        ),
    ],
)
def test_refused_before_anything_is_created(
    world: World, flags: list[str], code: int, said: str
) -> None:
    done = world.submit("pipeline: sandboxes.plain\ntarget: local\n", *flags)
    assert done.exit_code == code
    assert said in done.stderr
    assert world.runs() == []
    assert world.sandboxes() == []


def test_the_seeds_mixed_resources(world: World) -> None:
    found = plan(world, "pipeline: sandboxes.mixed\ntarget: local\n")
    asked = {step["name"]: step["sandbox"] for step in found["steps"]}
    assert {name: box["gpu"] for name, box in asked.items()} == {
        "preprocess_data": None,
        "train_model": "A100",
        "evaluate_model": "T4",
    }
    assert asked["train_model"]["memory_mib"] == 30518
    assert asked["train_model"]["origins"]["gpu"]["origin"] == "step in code"
    assert asked["evaluate_model"]["origins"]["gpu"]["origin"] == "pipeline in code"
    assert found["run_sandbox"]["gpu"] is None
    assert found["max_parallelism"] == 2
    assert world.runs() == []


@pytest.mark.local_store("its database and artifact store are what Modal can't reach")
def test_a_stack_that_modal_cant_reach_has_all_its_problems_in_one_message(world: World) -> None:
    done = modalrun(world, "plan", str(world.spec("pipeline: sandboxes.plain\n")))
    assert done.exit_code == 2
    assert "database on this machine" in done.stderr
    assert "artifact store 'default'" in done.stderr
    assert "Plan of pipeline 'plain'" in done.stdout
    assert f"  stack        {world.stack}\n" in done.stdout
    refused = world.submit("pipeline: sandboxes.plain\n", **world.server())
    assert refused.exit_code == 2
    assert "artifact store 'default'" in refused.stderr
    assert world.runs() == []


def test_a_component_gives_defaults_and_half_a_token_is_refused(world: World) -> None:
    code = (
        "from zenml.client import Client\n"
        "from zenml.enums import StackComponentType\n"
        "client = Client()\n"
        "def stack(name, **values):\n"
        "    made = client.create_stack_component(name=name, flavor='modal',\n"
        "        component_type=StackComponentType.ORCHESTRATOR, configuration=values)\n"
        "    store = client.active_stack_model.components[StackComponentType.ARTIFACT_STORE][0]\n"
        "    client.create_stack(name, {StackComponentType.ORCHESTRATOR: made.id,\n"
        "        StackComponentType.ARTIFACT_STORE: store.id})\n"
        "stack('whole', gpu='L4', timeout=123, region='eu')\n"
        "result = 0\n"
    )
    world.zenml(code)
    found = plan(
        world, "pipeline: sandboxes.plain\ntarget: local\nstack: whole\n", "--region", "us"
    )
    box = found["run_sandbox"]
    assert (box["gpu"], box["timeout"], box["regions"]) == ("L4", 123, ["us"])
    assert box["origins"]["gpu"]["origin"] == "component"


def test_a_deployment_file_is_planned_and_run_with_other_settings(world: World) -> None:
    file = world.project / "deployment.json"
    spec = world.spec("pipeline: sandboxes.decorated\ntarget: local\n")
    compiled = modalrun(world, "compile", str(spec), "-o", str(file))
    assert compiled.exit_code == 0, compiled.stderr
    assert world.runs() == []

    text = (
        "deployment: deployment.json\ntarget: local\nrun_name: from-a-file\n"
        "settings:\n  orchestrator: {gpu: T4, secrets: []}\n  resources: {gpu_count: 1}\n"
    )
    found = plan(world, text)
    assert found["run_sandbox"]["origins"]["gpu"]["origin"] == "run spec, pipeline"
    assert (
        found["run_sandbox"]["origins"]["timeout"]["origin"] == "deployment file: pipeline in code"
    )

    make_all_that_is_named(world)
    done = world.submit(text, "--timeout", "222")
    assert done.exit_code == 0, done.stderr
    (sandbox,) = world.sandboxes()
    assert (sandbox.gpu, sandbox.timeout_secs, sandbox.cloud) == ("T4", 222, "gcp")
    # What only the code says.
    assert (sandbox.app_name, sandbox.environment) == ("my-app", "staging")
    assert (sandbox.regions, sandbox.volumes) == (["us-east", "eu"], {"/data": "data"})
    assert (sandbox.milli_cpu, sandbox.milli_cpu_max) == (1500, 4000)
    assert (sandbox.memory_mb, sandbox.memory_mb_max) == (3072, 4096)
    assert world.only_run().name == "from-a-file"


@pytest.mark.exhaustive
def test_a_stored_snapshot_by_id_and_by_name(world: World) -> None:
    first = world.submit("pipeline: sandboxes.plain\ntarget: local\n", "--timeout", "333")
    assert first.exit_code == 0, first.stderr
    snapshot = world.zenml(
        "from zenml.client import Client\n"
        "client = Client()\n"
        "found = client.list_snapshots(named_only=False).items[0]\n"
        "client.update_snapshot(found.id, name='kept')\n"
        "result = str(found.id)\n"
    )
    for deployment in (snapshot, "kept"):
        found = plan(world, f"deployment: {deployment}\ntarget: local\n", "--gpu", "L4")
        assert (found["run_sandbox"]["timeout"], found["run_sandbox"]["gpu"]) == (333, "L4")
    done = world.submit("deployment: kept\ntarget: local\nsource_root: .\n", "--gpu", "L4")
    assert done.exit_code == 0, done.stderr
    assert [box.gpu for box in world.sandboxes()] == ["", "L4"]
    (world.project / "other").mkdir()
    other = world.submit("deployment: kept\ntarget: local\nsource_root: other\n")
    assert other.exit_code == 2
    assert "compiled from sandboxes.py, which" in " ".join(other.stderr.split())
    missing = world.submit("deployment: nothing-of-that-name\ntarget: local\n")
    assert missing.exit_code == 4
    assert "nothing-of-that-name" in missing.stderr
