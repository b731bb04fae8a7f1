"""From Docker settings to what the Modal server received, with the real SDK and real ZenML.

The server is the local Modal server: it records layers, builds nothing, and fails builds on order.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modal
import pytest

from modalrun.errors import NotFoundError, RunFailedError, UsageError
from modalrun.localmodal import launcher
from modalrun.localmodal.paths import StateDir
from modalrun.localmodal.store import SandboxRecord, Store
from modalrun.modal_api.images import Builder, python_path, with_files
from modalrun.recipe import (
    FromDockerfile,
    FromRegistry,
    ImageRecipe,
    Named,
    Packages,
    RegistryCredentials,
    Slim,
)

pytestmark = pytest.mark.e2e

DEADLINE = 120
ENGINE = Packages("modalrun's engine", ("zenml==0.98.0", "modal==1.6.4"))


@dataclass
class World:
    """One local Modal server, one ZenML database, one project folder."""

    folder: Path
    env: dict[str, str]

    @property
    def state(self) -> Path:
        return Path(self.env["MODALRUN_LOCAL_STATE"])

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            env=self.env,
            cwd=self.project,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def submit(self, **spec: Any) -> subprocess.CompletedProcess[str]:
        """Submit the project's pipeline; JSON is YAML."""
        spec = {"pipeline": "pipes.tiny", "target": "local", "enable_cache": False, **spec}
        (self.project / "run.yaml").write_text(json.dumps(spec))
        return self.run("modalrun", "submit", "run.yaml")

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        store = Store(StateDir(self.state).database)
        try:
            yield store
        finally:
            store.close()

    def layers(self, image_id: str) -> list[dict[str, Any]]:
        """What the server recorded of an image, the first layer first."""
        with self.store() as store:
            chain: list[dict[str, Any]] = []
            while image_id:
                stored = store.get("image", image_id)
                assert stored is not None
                chain.insert(0, stored.document["recipe"])
                bases = chain[0].get("baseImages")
                image_id = bases[0]["imageId"] if bases else ""
        return chain

    def commands(self, image_id: str) -> list[str]:
        """The commands of all layers, without the lines that begin each layer."""
        lines = [c for layer in self.layers(image_id) for c in layer["dockerfileCommands"]]
        return [line for line in lines if line != "FROM base"]

    def sandbox(self, result: subprocess.CompletedProcess[str]) -> SandboxRecord:
        """The sandbox that a submission has created."""
        found = re.search(r"sb-\w+", result.stderr)
        assert found, result.stderr
        with self.store() as store:
            record = store.sandbox(found[0])
        assert record is not None
        return record

    def fail_builds(self, *builds: dict[str, Any]) -> None:
        faults = StateDir(self.state).faults_file
        faults.parent.mkdir(parents=True, exist_ok=True)
        written = faults.with_suffix(".new")
        written.write_text(json.dumps({"builds": list(builds)}))
        written.replace(faults)


PIPELINE = """
from zenml import pipeline, step

@step
def one() -> None:
    from code_of import text
    import os
    print(text, os.environ.get("FROM_THE_IMAGE"), os.environ.get("LATE"))

@pipeline
def tiny() -> None:
    one()
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("images")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MODAL", "ZENML"))}
    env |= {
        "HOME": str(folder / "home"),
        "ZENML_CONFIG_PATH": str(folder / "zenml"),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "MODALRUN_LOCAL_STATE": str(folder / "state"),
        "DOCKER_HOST": f"unix://{folder}/no-docker",
        "PYTHONPATH": str(Path(launcher.__file__).parents[2]),
    }
    (folder / "home").mkdir()
    (folder / "project").mkdir()
    made = World(folder, env)
    (made.project / "pipes.py").write_text(PIPELINE)
    (made.project / "code_of.py").write_text("text = 'first'\n")
    yield made
    launcher.stop(made.state)


@pytest.fixture(scope="module")
def client(world: World) -> Iterator[modal.Client]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("MODAL_")]:
            patch.delenv(name)
        for name, value in launcher.ensure_running(world.state).environ().items():
            patch.setenv(name, value)
        yield modal.Client.from_credentials(
            os.environ["MODAL_TOKEN_ID"], os.environ["MODAL_TOKEN_SECRET"]
        )


@pytest.fixture
def builder(world: World, client: modal.Client) -> Builder:
    world.fail_builds()
    app = modal.App.lookup("images", create_if_missing=True, client=client)
    return Builder(client, app, None, RegistryCredentials("me", "s3cret"))


# Recipe -> layers.


def test_layers_in_order(world: World, builder: Builder) -> None:
    recipe = ImageRecipe(
        Slim("3.11"),
        environment=(("A", "one two"),),
        apt_packages=("git", "curl"),
        packages=(
            ENGINE,
            Packages("requirements", ("torch==2.4", "numpy"), ENGINE.lines),
        ),
        installer_args=("--index-url=https://host/simple",),
        runtime_environment=(("LATE", "$HOME"),),
    )
    image = builder.build(recipe, world.project)
    layers = world.layers(image.object_id)
    assert [layer["dockerfileCommands"][1:] for layer in layers[1:4]] == [
        ["ENV A='one two'"],
        ["RUN apt-get update", "RUN apt-get install -y git curl"],
        [
            "COPY --from=ghcr.io/astral-sh/uv:latest /uv /.uv/uv",
            "RUN /.uv/uv pip install --python $(command -v python) --compile-bytecode"
            " --index-url=https://host/simple modal==1.6.4 zenml==0.98.0",
        ],
    ]
    assert layers[0]["dockerfileCommands"][0].startswith("FROM python:3.11")
    # The pins go with every later group, so that nothing replaces what modalrun runs with.
    assert layers[4]["dockerfileCommands"][-1].endswith(
        "modal==1.6.4 numpy torch==2.4 zenml==0.98.0"
    )
    assert layers[5]["dockerfileCommands"][1:] == ["ENV LATE='$HOME'"]
    assert len(layers) == 6


def test_pip_and_requirements_files(world: World, builder: Builder) -> None:
    lines = ("--extra-index-url https://u:s3cret@h/", "numpy")
    for installer, command in (
        ("pip", "RUN python -m pip install -r /.requirements.txt --pre"),
        ("uv", "RUN /.uv/uv pip install --python $(command -v python) --compile-bytecode --pre"),
    ):
        recipe = ImageRecipe(
            Slim("3.11"),
            packages=(Packages("requirements", lines),),
            installer=installer,  # type: ignore[arg-type]
            installer_args=("--pre",),
        )
        image = builder.build(recipe, world.project)
        assert any(c.startswith(command) for c in world.commands(image.object_id))
        assert "s3cret" not in json.dumps(world.layers(image.object_id))
    plain = ImageRecipe(Slim("3.11"), packages=(ENGINE,), installer="pip")
    image = builder.build(plain, world.project)
    assert "RUN python -m pip install modal==1.6.4 zenml==0.98.0" in world.commands(image.object_id)


def test_project_user_and_mounts(world: World, builder: Builder) -> None:
    recipe = ImageRecipe(Slim("3.11"), project_install="pip install --no-deps .", user="me:us")
    image = builder.build(recipe, world.project)
    commands = world.commands(image.object_id)
    assert commands[-4:] == [
        "COPY . /",
        "RUN cd /app/code && pip install --no-deps .",
        "RUN mkdir -p /app/code && chown -R me:us /app",
        "USER me:us",
    ]
    mounted = with_files(image, world.project, package=True)
    app = builder._app
    sandbox = modal.Sandbox.create(
        "sh", "-c", "ls $MODALRUN_LOCAL_ROOT/app/code $MODALRUN_LOCAL_ROOT/opt/modalrun/modalrun",
        app=app, image=mounted, client=builder._client, timeout=60,
    )  # fmt: skip
    listed = sandbox.stdout.read()
    assert "pipes.py" in listed
    assert "supervisor" not in listed
    assert "image.py" in listed
    with world.store() as store:
        record = store.sandbox(sandbox.object_id)
    assert record is not None
    # Mounts are no layers: the sandbox runs on the very image that was built.
    assert record.image_id == image.object_id


def test_registry_with_credentials(world: World, builder: Builder) -> None:
    recipe = ImageRecipe(FromRegistry("registry.example/me/image:1", private=True))
    image = builder.build(recipe, world.project)
    (layer,) = world.layers(image.object_id)
    assert layer["dockerfileCommands"] == ["FROM registry.example/me/image:1"]
    assert layer["imageRegistryConfig"]["registryAuthType"] == "REGISTRY_AUTH_TYPE_STATIC_CREDS"
    assert layer["imageRegistryConfig"]["secretId"].startswith("st-")
    public = builder.build(ImageRecipe(FromRegistry("python:3.11")), world.project)
    assert "secretId" not in world.layers(public.object_id)[0].get("imageRegistryConfig", {})
    everything = b"".join(p.read_bytes() for p in world.state.glob("*.log"))
    assert b"s3cret" not in everything


def test_dockerfile(world: World, builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:3.11\nARG V\nCOPY lib /lib\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "kept").write_text("x")
    (tmp_path / "lib" / "private").write_text("x")
    (tmp_path / "ignore").write_text("# never\nlib/private\n")
    base = FromDockerfile(tmp_path / "Dockerfile", tmp_path, tmp_path / "ignore", (("V", "1"),))
    image = builder.build(ImageRecipe(base, force_build=True), world.project)
    layer = world.layers(image.object_id)[0]
    assert layer["dockerfileCommands"][:3] == ["FROM python:3.11", "ARG V", "COPY lib /lib"]
    assert layer["buildArgs"] == {"V": "1"}
    with world.store() as store:
        mount = store.get("mount", layer["contextMountId"])
    assert mount is not None
    assert "lib/kept" in json.dumps(mount.document)
    assert "private" not in json.dumps(mount.document)


def test_named_images(world: World, builder: Builder) -> None:
    image = builder.build(ImageRecipe(Slim("3.11"), environment=(("N", "1"),)), world.project)
    image.publish("mine:v1", client=builder._client)
    for name in ("mine:v1", "main/mine:v1", image.object_id):
        found = builder.build(ImageRecipe(Named(name)), world.project)
        assert found.object_id == image.object_id
    with pytest.raises(NotFoundError, match="absent"):
        builder.build(ImageRecipe(Named("absent")), world.project)
    with pytest.raises(NotFoundError, match="im-absent"):
        builder.build(ImageRecipe(Named("im-absent")), world.project)


def test_failed_build_shows_the_end_of_its_log(world: World, builder: Builder) -> None:
    log = [f"line {n}" for n in range(100)] + ["ERROR: no matching distribution"]
    world.fail_builds({"contains": "no-such-package", "log": log})
    recipe = ImageRecipe(Slim("3.11"), packages=(Packages("x", ("no-such-package",)),))
    with pytest.raises(RunFailedError) as caught:
        builder.build(recipe, world.project)
    assert caught.value.exit_code == 1
    assert "im-" in caught.value.message
    assert "  | line 61\n" in caught.value.message
    assert "line 60\n" not in caught.value.message
    assert caught.value.message.endswith("| ERROR: no matching distribution")
    # Mended: the same recipe is built anew.
    world.fail_builds()
    assert builder.build(recipe, world.project).object_id


def test_argument_that_modal_refuses(world: World, builder: Builder) -> None:
    with pytest.raises(UsageError, match=r"2\.7"):
        builder.build(ImageRecipe(Slim("2.7")), world.project)


def test_python_path() -> None:
    recipe = ImageRecipe(Slim("3.11"), environment=(("PYTHONPATH", "/lib"),))
    assert python_path(recipe) == "/opt/modalrun:/lib"
    assert python_path(ImageRecipe(Slim("3.11"))) == "/opt/modalrun"


# Run spec -> image, as users do it.

DOCKER = {
    "apt_packages": ["git"],
    "requirements": "requirements.txt",
    "required_integrations": ["s3"],
    "environment": {"from_the_image": "yes"},
    "runtime_environment": {"LATE": "too"},
}


def test_a_code_change_rebuilds_nothing(world: World) -> None:
    (world.project / "requirements.txt").write_text("humanize  # for people\n")
    spec = {"pipeline": "pipes.tiny", "settings": {"docker": DOCKER}}
    first = world.submit(**spec)
    assert first.returncode == 0, first.stderr
    assert "first yes too" in first.stdout
    before = world.sandbox(first)
    with world.store() as store:
        images = {image.id for image in store.all("image")}
    (world.project / "code_of.py").write_text("text = 'second'\n")
    second = world.submit(**spec)
    assert second.returncode == 0, second.stderr
    assert "second yes too" in second.stdout
    after = world.sandbox(second)
    with world.store() as store:
        assert {image.id for image in store.all("image")} == images
    assert after.id != before.id
    assert after.image_id == before.image_id
    commands = "\n".join(world.commands(after.image_id))
    order = ["ENV FROM_THE_IMAGE=yes", "apt-get install -y git", "uv==", "s3fs", "humanize", "LATE"]
    places = [commands.index(text) for text in order]
    assert places == sorted(places)


def test_failed_build_ends_the_run_with_1(world: World) -> None:
    world.fail_builds({"contains": "no-such-package", "log": ["ERROR: it is not there"]})
    docker = {"requirements": ["no-such-package"]}
    result = world.submit(pipeline="pipes.tiny", settings={"docker": docker})
    world.fail_builds()
    assert result.returncode == 1
    assert "Modal could not build the image im-" in result.stderr
    assert "ERROR: it is not there" in result.stderr
    assert "Traceback" not in result.stderr


def test_registry_image_of_a_private_registry(world: World) -> None:
    """Credentials of the stack's container registry go along as a secret, and nowhere else."""
    (world.project / "make_stack.py").write_text(STACK)
    made = world.run("make_stack")
    assert made.returncode == 0, made.stderr
    docker = {"skip_build": True, "parent_image": "registry.example/me/image:1"}
    result = world.submit(
        pipeline="pipes.tiny",
        stack="with_registry",
        image={"source": "registry"},
        settings={"docker": docker},
    )
    assert result.returncode == 0, result.stderr
    (layer,) = world.layers(world.sandbox(result).image_id)
    assert layer["dockerfileCommands"] == ["FROM registry.example/me/image:1"]
    assert layer["imageRegistryConfig"]["registryAuthType"] == "REGISTRY_AUTH_TYPE_STATIC_CREDS"
    assert "s3cret-word" not in result.stdout + result.stderr


STACK = """
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
"""


def test_zenml_builds_and_pushes(world: World) -> None:
    """`image: registry` with ZenML's real build code, without Docker and with a stand-in for it."""
    (world.project / "build.py").write_text(BUILD)
    docker = {"parent_image": "python:3.11", "install_stack_requirements": False}
    spec = {
        "pipeline": "pipes.tiny",
        "stack": "with_registry",
        "image": {"source": "registry"},
        "settings": {"docker": docker},
    }
    (world.project / "run.yaml").write_text(json.dumps(spec))
    result = world.run("build")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout.splitlines()[-1])
    assert told["without_docker"][0] == "UsageError"
    assert "No container engine is available" in told["without_docker"][1]
    assert "skip_build=True" in told["without_docker"][2]
    assert told["without_registry"][0] == "UsageError"
    assert "has none" in told["without_registry"][1]
    assert told["built"] == ["registry.example/me/zenml@sha256:abc", True, "me"]
    assert told["again"] == told["built"]
    assert told["builds"] == 1
    assert told["failed"][0] == "RunFailedError"
    assert "s3cret-word" not in result.stdout + result.stderr


BUILD = """
import json, sys
from pathlib import Path
from modalrun.spec import load_spec
from modalrun.submission import prepare_process
from modalrun.errors import ModalrunError
spec = load_spec(Path("run.yaml"), target="modal")
prepare_process(spec.source_root)
from modalrun.zenml_api import compiling, registry
from modalrun import plan
from modalrun.recipe import BuiltByZenML
from zenml.utils.pipeline_docker_image_builder import PipelineDockerImageBuilder as Builder

def resolved(spec):
    compiled = compiling.compile_spec(spec)
    made = plan.make_plan(
        compiled.deployment, target="modal", source_root=spec.source_root, python="python",
        python_version="3.11", engine_packages=(),
    )
    recipe = made.run_sandbox.image
    assert recipe.base == BuiltByZenML(), recipe
    recipe, credentials = registry.resolved(recipe, compiled.snapshot, compiled.stack)
    return [recipe.base.image, recipe.base.private, credentials.username]

def error(spec):
    try:
        return resolved(spec)
    except ModalrunError as error:
        return [type(error).__name__, error.message, error.hint]

import dataclasses
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
print(json.dumps(told))
"""


def test_wrong_image_settings(world: World) -> None:
    for image, said in (
        ({"source": "registri"}, "image"),
        ({"name": "a", "source": "registry"}, "either"),
        ({}, "either"),
        ({"nam": "a"}, "nam"),
    ):
        result = world.submit(pipeline="pipes.tiny", image=image)
        assert result.returncode == 2, result.stderr
        assert said in result.stderr
        assert "run.yaml:" in result.stderr
