"""The image of a driver, and that what runs in a sandbox needs only what its image has."""

from __future__ import annotations

import json
import re
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement

from modalrun.modal_api.images import COMPILE
from modalrun.submit.runtime_packages import ENGINE
from tests.e2e.test_images import layers

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

IMPORT_ALL = """
import importlib, json, pkgutil, sys

class Missing:
    names = frozenset(json.loads(MISSING))

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import modalrun.driver, modalrun.modal_api.sandboxes.step_sandboxes
import modalrun.modal_api.trial, modalrun.zenml_api.health
import modalrun.zenml_api.execution, modalrun.zenml_api.records
for package in (modalrun.driver, modalrun.zenml_api.execution, modalrun.zenml_api.records):
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
result = None
"""


def test_what_runs_in_a_sandbox_imports_only_what_its_image_has(world: World) -> None:
    """An image that ZenML builds for a server has no SQLAlchemy, and none has Typer."""
    distributions = metadata.packages_distributions()
    installed = set().union(*map(needed, ENGINE))
    missing = [
        module
        for module, owners in distributions.items()
        if module != "modalrun" and installed.isdisjoint(map(normal, owners))
    ]
    assert {"sqlalchemy", "typer", "pytest"} <= set(missing)
    assert not {"zenml", "modal", "requests", "pydantic"} & set(missing)
    world.zenml(IMPORT_ALL.replace("MISSING", repr(json.dumps(missing))))


def needed(name: str, found: set[str] | None = None) -> set[str]:
    """The distributions that are installed with one, without its extras."""
    found = set() if found is None else found
    name = normal(name)
    if name not in found:
        found.add(name)
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed(requirement.name, found)
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def commands(world: World, role: str) -> str:
    """The commands of the layers of a run's sandbox with this role."""
    (sandbox,) = (one for one in world.sandboxes() if one.tags["modalrun-role"] == role)
    recipes = layers(world, sandbox.image_id)
    return "\n".join(line for layer in recipes for line in layer["dockerfileCommands"])


def spec(pipeline: str, docker: dict[str, Any], **more: Any) -> str:
    """A run spec of a `per_step` run; JSON is YAML."""
    settings = {"docker": docker, "orchestrator": {"mode": "per_step"}}
    return json.dumps({"pipeline": pipeline, "target": "local", "settings": settings, **more})


def test_the_driver_of_a_static_pipeline_has_a_small_image_of_its_own(world: World) -> None:
    """The user's image may lack the Modal SDK, and has what the driver does not need."""
    docker = {"skip_build": True, "parent_image": "me/with-zenml:1"}
    done = world.submit(spec("pictured.pictured", docker))
    assert done.exit_code == 0, done.stderr
    step = ("FROM me/with-zenml:1", "FROM base", "ENTRYPOINT []", "FROM base", f"RUN {COMPILE}")
    assert commands(world, "step") == "\n".join(step)
    driver = commands(world, "run")
    assert "FROM python:3." in driver
    for package in ("zenml[local]==", "modal==", "pydantic=="):
        assert package in driver


def test_requirements_from_git_get_git(world: World) -> None:
    docker = {"requirements": ["humanize @ git+https://github.com/python-humanize/humanize"]}
    text = spec("pictured.pictured", docker)
    planned = world.modalrun("plan", str(world.spec(text))).finish()
    assert planned.exit_code == 0, planned.stderr
    assert "git is added to the image: requirements installs from Git" in planned.stdout
    done = world.submit(text)
    assert done.exit_code == 0, done.stderr
    step = commands(world, "step")
    assert step.index("apt-get install -y git") < step.index("git+https://github.com/python-hum")
    assert "git" not in commands(world, "run")


@pytest.mark.exhaustive
def test_the_driver_of_a_dynamic_pipeline_gets_the_modal_sdk(world: World) -> None:
    docker = {"skip_build": True, "parent_image": "me/with-zenml:1"}
    done = world.submit(spec("growing.growing", docker))
    assert done.exit_code == 0, done.stderr
    assert "note: modal==" in done.stderr
    run = commands(world, "run")
    assert run.startswith("FROM me/with-zenml:1")
    assert "modal==" in run
    assert "zenml==" not in run


BUCKETS = """
import os
from zenml.artifact_stores import (
    LocalArtifactStore, LocalArtifactStoreConfig, LocalArtifactStoreFlavor
)
from zenml.experiment_trackers.base_experiment_tracker import (
    BaseExperimentTracker, BaseExperimentTrackerConfig, BaseExperimentTrackerFlavor
)

def require(module):
    if "MODALRUN_RUN_ID" in os.environ and "MODALRUN_STEP" not in os.environ:
        raise ImportError(f"No module named '{module}'")

class Bucket(LocalArtifactStore):
    custom_cache_key = None  # as in remote stores

class BucketConfig(LocalArtifactStoreConfig):
    pass

class BucketFlavor(LocalArtifactStoreFlavor):
    name = "bucket"
    config_class = BucketConfig

    @property
    def implementation_class(self):
        require("s3fs")
        return Bucket

class TrackerFlavor(BaseExperimentTrackerFlavor):
    name = "tracker"
    config_class = BaseExperimentTrackerConfig

    @property
    def implementation_class(self):
        require("mlflow")
        return BaseExperimentTracker
"""

BUCKET_STACK = """
import sys
from zenml.client import Client
from zenml.enums import StackComponentType as Kind
from zenml.utils import source_utils
sys.path.insert(0, {root!r})
source_utils.set_custom_source_root({root!r})
client = Client()
client.create_flavor("buckets.BucketFlavor", Kind.ARTIFACT_STORE)
client.create_flavor("buckets.TrackerFlavor", Kind.EXPERIMENT_TRACKER)
client.create_stack_component("bucket", "bucket", Kind.ARTIFACT_STORE, {{"path": {path!r}}})
client.create_stack_component("tracker", "tracker", Kind.EXPERIMENT_TRACKER, {{}})
client.create_stack("buckets", {{
    Kind.ORCHESTRATOR: "default", Kind.ARTIFACT_STORE: "bucket", Kind.EXPERIMENT_TRACKER: "tracker",
}})
result = None
"""


@pytest.mark.exhaustive
def test_the_driver_needs_no_package_of_the_stack(world: World) -> None:
    """It reads and writes records only; also to look a step up in the cache."""
    (world.project / "buckets.py").write_text(BUCKETS)
    bucket = world.root / "bucket"
    bucket.mkdir()
    world.zenml(BUCKET_STACK.format(root=str(world.project), path=str(bucket)))
    text = spec("diamond.diamond", {}, stack="buckets")
    done = world.submit(text)
    assert done.exit_code == 0, done.stderr
    sandboxes = len(world.sandboxes())
    again = world.submit(text, ZENML_PREVENT_CLIENT_SIDE_CACHING="1")
    assert again.exit_code == 0, again.stderr
    assert set(world.runs()[-1].statuses.values()) == {"cached"}
    assert len(world.sandboxes()) == sandboxes + 2, "the driver, and the step without parents"
