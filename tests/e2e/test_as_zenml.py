"""modalrun compiles a pipeline as ZenML's `with_options(config_path=...)` does."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

MODULE = """
from zenml import get_pipeline_context, pipeline, step
from zenml.pipelines.compilation_context import PipelineCompilationContext

SEEN = {}

def hook():
    pass

@step(extra={"of": "step"})
def work(number: int = 0, times: int = 1) -> int:
    return number

@pipeline(extra={"code": 1, "both": "code"}, tags=["code"], enable_cache=True)
def observed(number: int = 1):
    SEEN["context"] = {k: str(v) for k, v in vars(get_pipeline_context()).items()}
    pipeline = PipelineCompilationContext.get().pipeline
    SEEN["configuration"] = pipeline.configuration.model_dump(mode="json")
    work(number)

@pipeline(dynamic=True, extra={"code": 1, "both": "code"}, tags=["code"], enable_cache=True)
def growing(number: int = 1):
    work(number)

optional = observed.with_options(
    run_name="of-code-{time}",
    steps={"work": {"extra": {"of": "code", "code": 1}}},
    extra={"both": "option"},
)
"""

VALUES: dict[str, Any] = {
    "run_name": "named-{date}",
    "enable_cache": False,
    "enable_artifact_metadata": False,
    "enable_artifact_visualization": False,
    "enable_step_logs": False,
    "enable_pipeline_logs": False,
    "enable_heartbeat": True,
    "steps": {"work": {"extra": {"of": "file"}, "parameters": {"times": 3}}},
    "settings": {
        "docker": {"apt_packages": ["git"]},
        "resources": {"cpu_count": 2},
        "orchestrator": {"timeout": 60},
    },
    "environment": {"NAME": "value"},
    "secrets": ["secretly"],
    "tags": ["file"],
    "extra": {"both": "file", "file": 2},
    "model": {"name": "modelled", "version": "1"},
    "parameters": {"number": 5},
    "retry": {"max_retries": 2},
    "substitutions": {"place": "here"},
    "cache_policy": "default",
    "execution_mode": "fail_fast",
}
"""A value for each key of ZenML's run configuration."""

ELSEWHERE = {"schedule", "build"}
"""Keys that a run spec can't have."""

HOOKS = {"init", "cleanup", "failure", "success", "start", "end", "pause", "resume"}
"""Hooks, which ZenML ignores in a file and modalrun does not."""

FLAVOR = """
from zenml.experiment_trackers.base_experiment_tracker import (
    BaseExperimentTracker, BaseExperimentTrackerConfig, BaseExperimentTrackerFlavor
)

class Tracker(BaseExperimentTracker):
    pass

class TrackerFlavor(BaseExperimentTrackerFlavor):
    name = "plain"
    config_class = BaseExperimentTrackerConfig
    implementation_class = Tracker
"""

TRACKED = """
from zenml import pipeline, step
from zenml.client import Client

tracker = Client().active_stack.experiment_tracker

@step(experiment_tracker=tracker.name if tracker else None)
def train() -> None:
    print("tracked by", tracker and tracker.name)

@pipeline
def training():
    train()
"""

TRACKED_STACK = """
import sys
from zenml.client import Client
from zenml.enums import StackComponentType as Kind
from zenml.utils import source_utils
sys.path.insert(0, {root!r})
source_utils.set_custom_source_root({root!r})
client = Client()
client.create_flavor("tracking.TrackerFlavor", Kind.EXPERIMENT_TRACKER)
client.create_stack_component("ours", "plain", Kind.EXPERIMENT_TRACKER, {{}})
names = {{Kind.ORCHESTRATOR: "default", Kind.ARTIFACT_STORE: "default"}}
client.create_stack("tracked", {{**names, Kind.EXPERIMENT_TRACKER: "ours"}})
result = None
"""

COMPILE = """
import json, os, sys, yaml
from pathlib import Path
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.utils import source_utils
from modalrun.spec.run_spec import load_spec
from modalrun.zenml_api.compiling.compile import compile_spec, use_stack
from modalrun.zenml_api.stacks import find_stack
root = Path({root!r})
specs = json.loads({specs!r})
sys.path.insert(0, str(root))
os.chdir(root)
source_utils.set_custom_source_root(str(root))
# With the orchestrator that a registered stack would have.
use_stack(find_stack(None))
result = {{"keys": sorted(PipelineRunConfiguration.model_fields)}}
for key, values in specs.items():
    for name in "observed", "growing", "optional":
        path = root / f"{{key}}.yaml"
        if name == "growing":
            # Its steps have no names yet.
            values = {{k: v for k, v in values.items() if k != "steps"}}
        if {ours!r}:
            path.write_text(yaml.safe_dump({{"pipeline": f"contextual.{{name}}", **values}}))
            snapshot = compile_spec(load_spec(path, target="local")).snapshot
        else:
            import contextual
            path.write_text(yaml.safe_dump(values))
            chosen = getattr(contextual, name).with_options(config_path=str(path))
            chosen.prepare()
            options = dict(chosen._run_args)
            # As `Pipeline._create_snapshot` does.
            options["steps"] = options.pop("step_configurations", None)
            snapshot, _, _ = chosen._compile(**options)
        import contextual
        result[f"{{key}}/{{name}}"] = {{
            **contextual.SEEN, "snapshot": snapshot.model_dump(mode="json")
        }}
        contextual.SEEN.clear()
"""


def compiled(world: World, specs: dict[str, Any], *, ours: bool) -> dict[str, Any]:
    """Compile the pipelines of `MODULE` with each of the run configurations."""
    secret = "from zenml.client import Client\nClient().create_secret('secretly', {'A': 'b'})\n"
    code = COMPILE.format(root=str(world.project), specs=json.dumps(specs), ours=ours)
    found = world.zenml(code if ours else secret + code)
    assert isinstance(found, dict)
    return found


def comparable(value: Any, key: str = "") -> Any:
    """Drop repeated tags and secrets: ZenML reads the file, and adds them, three times.

    The record of the run spec, which `rerun` needs, is modalrun's alone.
    """
    if isinstance(value, dict):
        return {k: comparable(v, k) for k, v in value.items() if k != "modalrun_spec"}
    return sorted(set(value)) if key in {"tags", "secrets"} and value else value


def test_each_key_of_the_run_configuration_is_seen_and_compiled_as_by_zenml(world: World) -> None:
    (world.project / "contextual.py").write_text(MODULE)
    specs = {key: {key: value} for key, value in VALUES.items()}
    specs["nothing"], specs["all"] = {}, VALUES
    specs["hooks"] = dict.fromkeys(("on_init", "on_cleanup", "on_start"), "contextual.hook")
    zenml = compiled(world, specs, ours=False)
    ours = compiled(world, specs, ours=True)
    hooks = {f"{hook}_hook_source" for hook in HOOKS} | {"init_hook_kwargs"}
    assert set(zenml.pop("keys")) == {*VALUES, *ELSEWHERE, *hooks}, "ZenML has other keys"
    for key in zenml:
        assert ours[key].get("context") == zenml[key].get("context"), key
        assert ours[key].get("configuration") == zenml[key].get("configuration"), key
        assert comparable(ours[key]["snapshot"]) == comparable(zenml[key]["snapshot"]), key


def test_the_stack_of_the_spec_is_active_while_the_module_is_imported(world: World) -> None:
    (world.project / "tracking.py").write_text(FLAVOR)
    (world.project / "tracked.py").write_text(TRACKED)
    world.zenml(TRACKED_STACK.format(root=str(world.project)))
    config = world.zenml_config / "config.yaml"
    before = config.read_bytes()

    done = world.submit("pipeline: tracked.training\ntarget: local\nstack: tracked\n")

    assert done.exit_code == 0, done.stderr
    # In the sandbox as well.
    assert "tracked by ours" in done.stdout
    assert config.read_bytes() == before, "the active stack is still the other one"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys\nsys.exit(3)", r"ending.py:2\): SystemExit: 3\n.*__main__"),
        ("import os\nos._exit(0)", r"ending.py:2\): SystemExit: os._exit\(0\)\n.*__main__"),
        ("raise KeyboardInterrupt", r"ending.py:1\): KeyboardInterrupt"),
        ("\nraise ValueError('one\\ntwo')", r"ending.py:2\): ValueError: one\n +two\n"),
        ("open('no-such')", r"ending.py:1\): FileNotFoundError: .*No such file.*'no-such'"),
        ("import no_such_package", r"ending.py:1\): ModuleNotFoundError: .*'no_such_package'"),
        ("def (", r"ending.py:1\): SyntaxError: "),
    ],
)
@pytest.mark.parametrize("while_", ["importing", "compiling"])
def test_code_that_ends_or_fails_is_told_with_its_line(
    world: World, while_: str, code: str, said: str
) -> None:
    (world.project / "ending.py").write_text(code)
    inside = "    import ending\n    step_()" if while_ == "compiling" else "    step_()"
    (world.project / "caller.py").write_text(
        f"from zenml import pipeline, step\n@step\ndef step_() -> None: ...\n"
        f"{'import ending' if while_ == 'importing' else ''}\n"
        f"@pipeline\ndef training():\n{inside}\n"
    )
    command = [sys.executable, "-m", "modalrun", "compile", "-o", "out.json"]

    done = world.start([*command, str(world.spec("pipeline: caller.training\n"))]).finish()

    assert done.exit_code == 2, done.stderr
    assert re.search(rf"{while_} 'caller.*{said}", done.stderr), done.stderr


def test_the_module_is_imported_in_the_source_root(world: World) -> None:
    (world.project / "beside.txt").write_text("work")
    (world.project / "reading.py").write_text(
        "from zenml import pipeline, step\nname = open('beside.txt').read()\n"
        "@step\ndef step_() -> None: ...\n"
        "@pipeline\ndef training():\n    step_(id=open('beside.txt').read())\n"
    )
    command = [sys.executable, "-m", "modalrun", "compile", "-o", "out.json"]

    done = world.start([*command, str(world.spec("pipeline: reading.training\n"))]).finish()

    assert done.exit_code == 0, done.stderr
    assert '"work"' in (world.elsewhere / "out.json").read_text()
