"""From the Docker settings of a run spec to the image that the Modal server was asked for."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from modalrun.modal_api.images import COMPILE

if TYPE_CHECKING:
    from tests.world import Result, World

pytestmark = pytest.mark.e2e
EXHAUSTIVE = pytest.mark.exhaustive

DOCKER = {
    "apt_packages": ["git"],
    "requirements": "requirements.txt",
    "required_integrations": ["s3"],
    "environment": {"from_the_image": "yes"},
    "runtime_environment": {"LATE": "too"},
}


def spec(**keys: Any) -> str:
    """A run spec; JSON is YAML."""
    return json.dumps({"pipeline": "pictured.pictured", "target": "local", **keys})


def recorded(world: World) -> dict[str, dict[str, Any]]:
    """The layers that the server knows: image id -> what was asked for."""
    rows = world._server("SELECT id, document FROM objects WHERE kind = 'image'")
    return {image_id: json.loads(document)["recipe"] for image_id, document in rows}


def layers(world: World, image_id: str) -> list[dict[str, Any]]:
    """The layers of an image, the first one first."""
    known = recorded(world)
    chain = [known[image_id]]
    while bases := chain[0].get("baseImages"):
        chain.insert(0, known[bases[0]["imageId"]])
    return chain


def test_a_code_change_rebuilds_nothing(world: World) -> None:
    (world.project / "requirements.txt").write_text("humanize  # for people\n")
    text = spec(enable_cache=False, settings={"docker": DOCKER})
    first = world.submit(text)
    assert first.exit_code == 0, first.stderr
    assert "first yes too" in first.stdout
    images = recorded(world)
    (world.project / "pictured_code.py").write_text("WORD = 'second'\n")
    second = world.submit(text)
    assert second.exit_code == 0, second.stderr
    assert "second yes too" in second.stdout
    before, after = world.sandboxes()
    assert after.image_id == before.image_id
    assert recorded(world) == images

    lines = [c for layer in layers(world, after.image_id) for c in layer["dockerfileCommands"]]
    text = "\n".join(lines)
    order = ["ENV FROM_THE_IMAGE=yes", "apt-get install -y git", "uv==", "s3fs", "humanize", "LATE"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


NEWER = """
import os, time
from growing import square
from zenml import pipeline

@pipeline(dynamic=True, enable_cache=False)
def newer():
    with open("notes.txt", "w") as file:
        file.write("made by the function")
    os.utime("notes.txt", (time.time() + 3600,) * 2)
    square(3).load()
"""


@pytest.mark.parametrize("by", ["you", pytest.param("the run sandbox", marks=EXHAUSTIVE)])
def test_files_that_seem_newer_than_now_are_mounted(world: World, by: str) -> None:
    """The SDK would refuse them: "was modified during build process"."""
    if by == "you":
        later = time.time() + 3600
        os.utime(world.project / "pictured_code.py", (later, later))
        done = world.submit(spec())
    else:
        (world.project / "newer.py").write_text(NEWER)
        settings = {"orchestrator": {"mode": "per_step"}}
        done = world.submit(spec(pipeline="newer.newer", settings=settings))
    assert done.exit_code == 0, done.stderr


def test_failed_build_ends_the_run_with_1(world: World) -> None:
    world.state.mkdir(mode=0o700)
    script = {"builds": [{"contains": "no-such-package", "log": ["ERROR: it is not there"]}]}
    (world.state / "faults.json").write_text(json.dumps(script))
    done = world.submit(spec(settings={"docker": {"requirements": ["no-such-package"]}}))
    assert done.exit_code == 1
    assert "Modal could not build the image im-" in done.stderr
    assert "ERROR: it is not there" in done.stderr
    assert "Traceback" not in done.stderr
    assert world.sandboxes() == []
    assert world.only_run().status == "failed"


def test_refused_settings_create_nothing(world: World) -> None:
    docker = {"dockerfile": "Dockerfile", "build_options": {"a": 1}}
    done = world.submit(spec(settings={"docker": docker}), "--target", "modal")
    assert done.exit_code == 2
    assert "Dockerfile" in done.stderr
    assert world.runs() == []


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({"source": "registri"}, "image.source"),
        pytest.param({"name": "a", "source": "registry"}, "either", marks=EXHAUSTIVE),
        pytest.param({}, "either", marks=EXHAUSTIVE),
        ({"nam": "a"}, "unknown key 'nam'"),
        pytest.param("mine", "either", marks=EXHAUSTIVE),
    ],
)
def test_wrong_image_settings(world: World, image: Any, said: str) -> None:
    done = world.submit(spec(image=image))
    assert_refused(done, said)
    assert_refused(world.submit(spec(settings={"orchestrator": {"image": image}})), said)


def assert_refused(done: Result, said: str) -> None:
    assert done.exit_code == 2
    assert "run.yaml:1" in done.stderr
    assert said in done.stderr


@EXHAUSTIVE
def test_named_image(world: World) -> None:
    done = world.submit(spec(image={"name": "absent"}))
    assert done.exit_code == 4
    assert "absent" in done.stderr
    publish = (
        "import modal, os\n"
        "app = modal.App.lookup('x', create_if_missing=True)\n"
        "image = modal.Image.debian_slim().env({'FROM_THE_IMAGE': 'published'}).build(app)\n"
        "image.publish('mine:v1')\n"
        "print(image.object_id)"
    )
    made = world.start(["python", "-c", publish], **world.server()).finish()
    assert made.exit_code == 0, made.stderr
    done = world.submit(spec(image={"name": "mine:v1"}))
    assert done.exit_code == 0, done.stderr
    assert "first published None" in done.stdout
    layer = recorded(world)[world.sandboxes()[0].image_id]
    assert layer["baseImages"][0]["imageId"] == made.stdout.strip()
    assert layer["dockerfileCommands"] == ["FROM base", "ENTRYPOINT []"]


MAKE_STACK = """
from zenml.client import Client
from zenml.enums import StackComponentType as T
client = Client()
client.create_secret("registry", {"username": "me", "password": "s3cret-word"})
client.create_stack_component(
    "registry", "default", T.CONTAINER_REGISTRY,
    {"uri": "registry.example/me", "authentication_secret": "registry"},
)
client.create_stack("with_registry", {
    T.ORCHESTRATOR: "default", T.ARTIFACT_STORE: "default", T.CONTAINER_REGISTRY: "registry",
})
result = None
"""


@EXHAUSTIVE
def test_registry_image_of_a_private_registry(world: World) -> None:
    """Credentials of the stack's container registry go along as a secret, and nowhere else."""
    world.zenml(MAKE_STACK)
    docker = {"skip_build": True, "parent_image": "registry.example/me/image:1"}
    text = spec(stack="with_registry", image={"source": "registry"}, settings={"docker": docker})
    done = world.submit(text)
    assert done.exit_code == 0, done.stderr
    (sandbox,) = world.sandboxes()
    layer, reset, compiled = layers(world, sandbox.image_id)
    assert reset["dockerfileCommands"] == ["FROM base", "ENTRYPOINT []"]
    assert compiled["dockerfileCommands"] == ["FROM base", f"RUN {COMPILE}"]
    assert layer["dockerfileCommands"] == ["FROM registry.example/me/image:1"]
    assert layer["imageRegistryConfig"]["registryAuthType"] == "REGISTRY_AUTH_TYPE_STATIC_CREDS"
    assert "s3cret-word" not in done.stdout + done.stderr + str(vars(sandbox)) + str(layer)


def test_zenml_builds_and_pushes(world: World) -> None:
    """`image: registry` with ZenML's real build code, without Docker and with a stand-in for it."""
    docker = {"parent_image": "python:3.11", "install_stack_requirements": False}
    path = world.spec(
        spec(stack="with_registry", image={"source": "registry"}, settings={"docker": docker})
    )
    world.environment["DOCKER_HOST"] = f"unix://{world.root}/no-docker"
    told = world.zenml(MAKE_STACK + BUILD.replace("SPEC", repr(str(path))))
    assert told["without_docker"][0] == "UsageError"
    assert "No container engine is available" in told["without_docker"][1]
    assert "skip_build=True" in told["without_docker"][2]
    assert told["without_registry"][0] == "UsageError"
    assert "has none" in told["without_registry"][1]
    assert told["built"] == ["registry.example/me/zenml@sha256:abc", True, "me"]
    assert told["again"] == told["built"]
    assert told["builds"] == 1
    assert told["failed"][0] == "RunFailedError"
    assert "s3cret-word" not in json.dumps(told)


BUILD = """
import dataclasses
from pathlib import Path
from modalrun.spec.run_spec import load_spec
from modalrun.zenml_api.process import prepare_process
from modalrun.errors import ModalrunError
spec = load_spec(Path(SPEC), target="modal")
prepare_process(spec.source_root)
from modalrun.zenml_api.compiling import compile, image_builds
from modalrun.plan import planner
from modalrun.plan.image_recipe import BuiltByZenML
from zenml.utils.pipeline_docker_image_builder import PipelineDockerImageBuilder as Builder

# Stands in for Docker alone; what decides whether to build is ZenML's.
def resolved(spec):
    compiled = compile.compile_spec(spec)
    made = planner.make_plan(
        compiled.deployment, target="modal", source_root=spec.source_root,
        python_version="3.11", engine_packages=(),
    )
    recipe = made.images[made.run_sandbox.image]
    assert recipe.base == BuiltByZenML(), recipe
    made, credentials = image_builds.resolve_images(made, compiled)
    recipe = made.images[made.run_sandbox.image]
    return [recipe.base.image, recipe.base.private, credentials.username]

def error(spec):
    try:
        return resolved(spec)
    except ModalrunError as error:
        return [type(error).__name__, error.message, error.hint]

told = {"without_docker": error(spec)}
told["without_registry"] = error(dataclasses.replace(spec, stack="default"))
calls = []
def fail(self, **_):
    raise OSError("the push was refused")
Builder.build_docker_image = fail
told["failed"] = error(spec)
def build(self, docker_settings, tag, **_):
    calls.append(tag)
    return "registry.example/me/zenml@sha256:abc", "FROM x", None
Builder.build_docker_image = build
told["built"] = resolved(spec)
told["again"] = resolved(spec)
told["builds"] = len(calls)
result = told
"""
