"""Images, mounts, blobs, volumes, and the folder and environment of a sandbox."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modal
import pytest

from modalrun.localmodal import launcher
from modalrun.localmodal.server_info import ServerInfo
from modalrun.localmodal.storage.paths import StateDir
from modalrun.localmodal.storage.store import Store

from .support import Sdk

Backend = dict[str, Any]


@pytest.fixture(autouse=True)
def _fresh_files_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_BUILD_VALIDATION", "ignore")


def test_mounts(sdk: Sdk, backend: Backend, tmp_path: Path) -> None:
    code = tmp_path / "code"
    (code / "deep" / "er").mkdir(parents=True)
    (code / "main.py").write_text("import deep.er.more; print(open('data.bin', 'rb').read()[:3])")
    (code / "deep" / "er" / "more.py").write_text("print('more')")
    big = os.urandom(5 * 1024 * 1024)
    (code / "data.bin").write_bytes(big)
    script = code / "run.sh"
    script.write_text("#!/bin/sh\npython main.py\ncksum < data.bin\necho spoilt > main.py\n")
    script.chmod(0o755)
    image = modal.Image.debian_slim().add_local_dir(code, "/app/code")
    for _ in range(2):
        sandbox = sdk.create("./run.sh", workdir="/app/code", image=image, **backend)
        first, second, third = sandbox.stdout.read().splitlines()
        assert (first, second) == ("more", str(big[:3]))
        assert third.split()[1] == str(len(big))
    assert StateDir(sdk.info.state_dir).blobs.stat().st_mode & 0o777 == 0o700


def test_an_absolute_path_in_the_command(sdk: Sdk, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import sys; print(sys.argv[1:])")
    image = modal.Image.debian_slim().add_local_file(tmp_path / "main.py", "/app/main.py")
    sandbox = sdk.create("python", "/app/main.py", "/etc/hosts", image=image)
    assert sandbox.stdout.read() == "['/etc/hosts']\n"


def test_recipe(sdk: Sdk, tmp_path: Path) -> None:
    (tmp_path / "copied.txt").write_text("copied")
    image = (
        modal.Image.debian_slim()
        .pip_install("no-such-package-needed")
        .env({"ONE": "a b", "TWO": "$ONE!"})
        .workdir("/job")
        .add_local_file(tmp_path / "copied.txt", "/data/copied.txt", copy=True)
        .run_commands("exit 1")
    )
    command = 'pwd; echo "$ONE|$TWO"; cat /data/copied.txt'
    sandbox = sdk.create("sh", "-c", command, image=image)
    folder, variables, copied = sandbox.stdout.read().splitlines()
    assert folder == "/job"
    assert variables == "a b|a b!"
    assert copied == "copied"
    store = Store(StateDir(sdk.info.state_dir).database)
    recipes = [layer.document["recipe"] for layer in store.all("image")]
    store.close()
    lines = [line for recipe in recipes for line in recipe.get("dockerfileCommands", [])]
    assert any("no-such-package-needed" in line for line in lines)
    assert "RUN exit 1" in lines


def test_an_image_is_the_same_in_another_process(sdk: Sdk) -> None:
    first = modal.Image.debian_slim().pip_install("x").build(sdk.app())
    code = """
import modal
app = modal.App.lookup("tests", create_if_missing=True)
print(modal.Image.debian_slim().pip_install("x").build(app).object_id)
"""
    assert sdk.script(code) == f"{first.object_id}\n"
    image = modal.Image.from_id(first.object_id, client=sdk.client)
    sdk.create("true", image=image).wait()


def test_folder_and_environment(
    start: Callable[..., ServerInfo],
    connect: Callable[[ServerInfo], Sdk],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "leak")
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "leak")
    monkeypatch.setenv("PYTHONPATH", f"{os.environ.get('PYTHONPATH', '')}:/leak")
    sdk = connect(start())
    sandbox = sdk.create("sh", "-c", "env; echo PWD=$(pwd); touch here /tmp/there ~/home")
    variables = dict(
        line.split("=", 1) for line in sandbox.stdout.read().splitlines() if "=" in line
    )
    assert "leak" not in " ".join(variables.values())
    assert variables["HOME"] == variables["PWD"] == "/root"
    assert variables["MODAL_SANDBOX_ID"] == sandbox.object_id
    unwanted = {
        "MODAL_ENVIRONMENT",
        "MODAL_TASK_ID",
        "MODAL_SERVER_URL",
        "MODAL_TOKEN_ID",
        "MODAL_IS_REMOTE",
        "MODALRUN_LOCAL_ROOT",
        "TMPDIR",
        "PYTHONUNBUFFERED",
    }
    assert unwanted.isdisjoint(variables)
    sandbox.wait()
    launcher.stop(sdk.info.state_dir)
    assert list((sdk.info.state_dir / "sandboxes").iterdir()) == []


def test_an_entrypoint_wraps_the_command(sdk: Sdk) -> None:
    wrapped = modal.Image.debian_slim().dockerfile_commands(
        'ENTRYPOINT ["env", "A=1,2"]', "CMD env"
    )
    cases = [
        (wrapped, (), "A=1,2\n"),
        (wrapped, ("sh", "-c", "echo A=$A"), "A=1,2\n"),
        (wrapped.entrypoint([]), ("sh", "-c", "echo A=$A"), "A=\n"),
        (wrapped.entrypoint(["echo"]), ("a", "b"), "a b\n"),
        # It drops the CMD.
        (wrapped.entrypoint(["echo", "c d"]), (), "c d\n"),
        (wrapped.cmd(["echo", "a,b"]), (), "a,b\n"),
    ]
    for image, command, output in cases:
        assert output in sdk.create(*command, image=image).stdout.read()


def test_python_is_the_hosts(sdk: Sdk) -> None:
    sandbox = sdk.create("python", "-c", "import sys, modal; print(sys.prefix)")
    assert sandbox.stdout.read().strip() == sys.prefix


def test_a_sandbox_may_choose_another_python(sdk: Sdk, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\necho another\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    environment: dict[str, str | None] = {"MODALRUN_LOCAL_PYTHON": str(tmp_path)}
    sandbox = sdk.create("python", env=environment)
    assert sandbox.stdout.read() == "another\n"

    project = tmp_path / "project"
    project.mkdir()
    (project / "module.py").touch()
    record = tmp_path / "lib" / "python3.11" / "site-packages" / "a-1.dist-info" / "direct_url.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"url": project.as_uri(), "dir_info": {"editable": True}}))
    sandbox = sdk.create("ls", str(project), env=environment)
    assert sandbox.stdout.read() == "module.py\n", "packages that are installed in place"


def test_a_volume_is_shared(sdk: Sdk, backend: Backend) -> None:
    volume = modal.Volume.from_name("shared", create_if_missing=True)
    volumes = {"/data": volume}
    writer = sdk.create("sh", "-c", "echo kept > /data/file", volumes=volumes, **backend)
    writer.wait()
    reader = sdk.create("cat", "/data/file", volumes=volumes, workdir="/data", **backend)
    assert reader.stdout.read() == "kept\n"
