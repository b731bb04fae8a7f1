"""From recipes to what the Modal server received, with the real SDK.

The server is the local Modal server: it records layers, builds nothing, and fails builds on order.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modal
import pytest

from modalrun.errors import NotFoundError, RunFailedError, UsageError
from modalrun.localmodal import launcher
from modalrun.localmodal.storage.paths import StateDir
from modalrun.localmodal.storage.store import Store
from modalrun.modal_api.client import Connection
from modalrun.modal_api.images import COMPILE, Builder
from modalrun.modal_api.mounts import with_files
from modalrun.plan.image_recipe import (
    FromDockerfile,
    FromRegistry,
    ImageRecipe,
    Named,
    Packages,
    RegistryCredentials,
    Slim,
)

pytestmark = pytest.mark.e2e

ENGINE = Packages("modalrun's engine", ("zenml==0.98.0", "modal==1.6.4"))


_bytecode = shutil.ignore_patterns("__pycache__")


class Server:
    """A local Modal server, asked what it has recorded."""

    def __init__(self, state: Path) -> None:
        self.state = state

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

    def fail_builds(self, *builds: dict[str, Any]) -> None:
        faults = StateDir(self.state).faults_file
        faults.parent.mkdir(parents=True, exist_ok=True)
        written = faults.with_suffix(".new")
        written.write_text(json.dumps({"builds": list(builds)}))
        written.replace(faults)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("images") / "state")
    yield made
    launcher.stop(made.state)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree."""
    root = tmp_path / "tree"
    root.mkdir()
    (root / "pipes.py").write_text("")
    return root


@pytest.fixture(scope="module")
def connection(server: Server) -> Iterator[Connection]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("MODAL_")]:
            patch.delenv(name)
        for name, value in launcher.ensure_running(server.state).environ().items():
            patch.setenv(name, value)
        yield Connection("local")


@pytest.fixture
def builder(server: Server, connection: Connection) -> Builder:
    server.fail_builds()
    app = modal.App.lookup("images", create_if_missing=True, client=connection.client)
    return Builder(connection, app, None, RegistryCredentials("me", "s3cret"))


# Recipe -> layers.


def test_layers_in_order(server: Server, builder: Builder, tree: Path) -> None:
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
    image = builder.build(recipe, tree)
    layers = server.layers(image.object_id)
    assert [layer["dockerfileCommands"][1:] for layer in layers[1:5]] == [
        [f"RUN {COMPILE}"],
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
    assert layers[5]["dockerfileCommands"][-1].endswith(
        "modal==1.6.4 numpy torch==2.4 zenml==0.98.0"
    )
    assert layers[6]["dockerfileCommands"][1:] == ["ENV LATE='$HOME'"]
    assert len(layers) == 7


def test_pip_and_requirements_files(server: Server, builder: Builder, tree: Path) -> None:
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
        image = builder.build(recipe, tree)
        assert any(c.startswith(command) for c in server.commands(image.object_id))
        assert "s3cret" not in json.dumps(server.layers(image.object_id))
    plain = ImageRecipe(Slim("3.11"), packages=(ENGINE,), installer="pip")
    image = builder.build(plain, tree)
    assert "RUN python -m pip install modal==1.6.4 zenml==0.98.0" in server.commands(
        image.object_id
    )


def test_project_and_mounts(server: Server, builder: Builder, tree: Path) -> None:
    recipe = ImageRecipe(Slim("3.11"), project_install="pip install --no-deps .")
    image = builder.build(recipe, tree)
    commands = server.commands(image.object_id)
    install = "cd /app/code && pip install --no-deps ."
    assert commands[-2:] == ["COPY . /", f"RUN {install} && {COMPILE}"]
    mounted = with_files(image, tree, package=True)
    app = builder.app
    sandbox = modal.Sandbox.create(
        "sh", "-c", "ls /app/code /opt/modalrun",
        app=app, image=mounted, client=builder.connection.client, timeout=60,
    )  # fmt: skip
    listed = sandbox.stdout.read()
    assert "pipes.py" in listed
    assert "modalrun.zip" in listed
    with server.store() as store:
        record = store.sandbox(sandbox.object_id)
    assert record is not None
    # Mounts are no layers: the sandbox runs on the very image that was built.
    assert record.image_id == image.object_id


def test_registry_with_credentials(server: Server, builder: Builder, tree: Path) -> None:
    recipe = ImageRecipe(FromRegistry("registry.example/me/image:1", private=True))
    image = builder.build(recipe, tree)
    layer, reset, compiled = server.layers(image.object_id)
    assert layer["dockerfileCommands"] == ["FROM registry.example/me/image:1"]
    assert reset["dockerfileCommands"] == ["FROM base", "ENTRYPOINT []"]
    assert compiled["dockerfileCommands"] == ["FROM base", f"RUN {COMPILE}"]
    assert layer["imageRegistryConfig"]["registryAuthType"] == "REGISTRY_AUTH_TYPE_STATIC_CREDS"
    assert layer["imageRegistryConfig"]["secretId"].startswith("st-")
    public = builder.build(ImageRecipe(FromRegistry("python:3.11")), tree)
    assert "secretId" not in server.layers(public.object_id)[0].get("imageRegistryConfig", {})
    everything = b"".join(p.read_bytes() for p in server.state.glob("*.log"))
    assert b"s3cret" not in everything


def test_dockerfile(server: Server, builder: Builder, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:3.11\nARG V\nCOPY lib /lib\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "kept").write_text("x")
    (tmp_path / "lib" / "private").write_text("x")
    (tmp_path / "ignore").write_text("# never\nlib/private\n")
    base = FromDockerfile(tmp_path / "Dockerfile", tmp_path, tmp_path / "ignore", (("V", "1"),))
    image = builder.build(ImageRecipe(base, force_build=True), tree)
    # Image builder 2026.10 makes a layer of the FROM line.
    first, layer, _, compiled = server.layers(image.object_id)
    assert compiled["dockerfileCommands"] == ["FROM base", f"RUN {COMPILE}"]
    assert first["dockerfileCommands"] == ["FROM python:3.11"]
    assert layer["dockerfileCommands"][:3] == ["FROM base", "ARG V", "COPY lib /lib"]
    assert layer["buildArgs"] == {"V": "1"}
    with server.store() as store:
        mount = store.get("mount", layer["contextMountId"])
    assert mount is not None
    assert "lib/kept" in json.dumps(mount.document)
    assert "private" not in json.dumps(mount.document)


def test_named_images(server: Server, builder: Builder, tree: Path) -> None:
    image = builder.build(ImageRecipe(Slim("3.11"), environment=(("N", "1"),)), tree)
    image.publish("mine:v1", client=builder.connection.client)
    for name in ("mine:v1", "main/mine:v1", image.object_id):
        found = builder.build(ImageRecipe(Named(name), keep_entrypoint=True), tree)
        assert found.object_id == image.object_id
        reset = builder.build(ImageRecipe(Named(name)), tree)
        assert server.commands(reset.object_id)[-1] == "ENTRYPOINT []"
        assert len(server.layers(reset.object_id)) == len(server.layers(image.object_id)) + 1
    with pytest.raises(NotFoundError, match="absent"):
        builder.build(ImageRecipe(Named("absent")), tree)
    with pytest.raises(NotFoundError, match="im-absent"):
        builder.build(ImageRecipe(Named("im-absent")), tree)


def test_failed_build_shows_the_end_of_its_log(
    server: Server, builder: Builder, tree: Path
) -> None:
    log = [f"line {n}" for n in range(100)] + ["ERROR: no matching distribution"]
    server.fail_builds({"contains": "no-such-package", "log": log})
    recipe = ImageRecipe(Slim("3.11"), packages=(Packages("x", ("no-such-package",)),))
    with pytest.raises(RunFailedError) as caught:
        builder.build(recipe, tree)
    assert caught.value.exit_code == 1
    assert "im-" in caught.value.message
    assert "  | line 61\n" in caught.value.message
    assert "line 60\n" not in caught.value.message
    assert caught.value.message.endswith("| ERROR: no matching distribution")
    # Mended: the same recipe is built anew.
    server.fail_builds()
    assert builder.build(recipe, tree).object_id


def test_bytecode_of_an_image(tmp_path: Path) -> None:
    """The command of the layer compiles what an installer has left uncompiled."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text("VALUE = 1")
    (package / "of_python_2.py").write_text("print 1")
    shutil.copytree(Path(json.__file__).parent, tmp_path / "json", ignore=_bytecode)
    _, code, _ = COMPILE.split("'")
    # What is on the path of this Python is not the test's.
    code = code.replace("sys.path", f"['', {str(tmp_path)!r}]")
    # An image may set this: nothing is written while a sandbox runs.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    compiled = {path.name.partition(".")[0] for path in tmp_path.rglob("*.pyc")}
    assert compiled == {"module", *(file.stem for file in tmp_path.glob("json/*.py"))}


def test_argument_that_modal_refuses(server: Server, builder: Builder, tree: Path) -> None:
    with pytest.raises(UsageError, match=r"2\.7"):
        builder.build(ImageRecipe(Slim("2.7")), tree)


def test_python_path() -> None:
    recipe = ImageRecipe(Slim("3.11"), environment=(("PYTHONPATH", "/lib"),))
    assert recipe.python_path == "/opt/modalrun/modalrun.zip:/lib"
    assert ImageRecipe(Slim("3.11")).python_path == "/opt/modalrun/modalrun.zip"
