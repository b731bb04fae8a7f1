"""Which code goes to a sandbox, and what the sandbox has to itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.world import Result, World

pytestmark = pytest.mark.e2e


def surroundings(done: Result) -> dict[str, Any]:
    """What the step has found around it."""
    assert done.exit_code == 0, done.stderr
    (line,) = (text for text in done.stdout.splitlines() if " | SURROUNDINGS " in text)
    found: dict[str, Any] = json.loads(line.partition(" | SURROUNDINGS ")[2])
    return found


def write(path: Path, text: str = "x\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.exhaustive
def test_the_source_root_is_the_nearest_zen_folder_above_the_spec(world: World) -> None:
    root = world.root / "repository"
    (root / ".zen").mkdir(parents=True)
    (root / "code").mkdir()
    shutil.copy(world.project / "surroundings.py", root / "code" / "surroundings.py")
    write(root / "code" / "__init__.py", "")
    write(root / "data" / "kept.csv")
    write(root / "data" / "secret.env")
    write(root / ".gitignore", "*.env\n")
    write(root / ".venv" / "lib" / "big.py")
    write(root / "environment" / "pyvenv.cfg")
    write(root / "code" / "__pycache__" / "old.pyc")
    write(root / "specs" / "deep" / "run.yaml", "pipeline: code.surroundings.surroundings\n")
    subprocess.run(["git", "init", "-q", str(root)], check=True)

    done = world.submit(root / "specs" / "deep" / "run.yaml", "--target", "local")

    found = surroundings(done)
    assert found["module"] == f"{found['cwd']}/code/surroundings.py"
    sent = {path for path in found["files"] if "__pycache__" not in path}
    assert sent == {
        ".gitignore",
        "code/__init__.py",
        "code/surroundings.py",
        "data/kept.csv",
        "specs/deep/run.yaml",
    }
    assert "code/__pycache__/old.pyc" not in found["files"]


@pytest.mark.exhaustive
def test_source_root_in_the_spec_beats_a_zen_folder(world: World) -> None:
    other = world.root / "other"
    other.mkdir()
    shutil.copy(world.project / "surroundings.py", other / "elsewhere.py")
    write(other / "venv" / "lib.py")
    write(other / "environment" / "pyvenv.cfg")
    (world.project / ".zen").mkdir()

    done = world.submit(
        "pipeline: elsewhere.surroundings\ntarget: local\nsource_root: ../other\n",
    )

    found = surroundings(done)
    assert {path for path in found["files"] if "__pycache__" not in path} == {"elsewhere.py"}


@pytest.mark.exhaustive
def test_two_runs_at_the_same_time_share_nothing_but_the_app(world: World) -> None:
    pipe = world.root / "pipe"
    os.mkfifo(pipe)
    text = "pipeline: surroundings.surroundings\ntarget: local\nparameters: {meet: %s, mode: %s}\n"

    # Started at the same time: also the ZenML configuration and the server's start are shared.
    commands = [world.popen(world.spec(text % (pipe, mode), f"{mode}.yaml")) for mode in ("r", "w")]

    one, two = (surroundings(command.finish()) for command in commands)
    assert all("met the other run" in command.stdout.text for command in commands)
    assert [run.status for run in world.runs()] == ["completed", "completed"]
    # The paths may be equal, as on Modal: each has a root of its own.
    assert (one["met"], two["met"]) == ([["of-r"]] * 3, [["of-w"]] * 3)
    for private in ("home", "config", "cwd"):
        for found in (one, two):
            assert not found[private].startswith((str(world.home), str(world.zenml_config)))
    world.wait_until(
        lambda: not any({"of-r", "of-w"} & {*names} for _, _, names in os.walk(world.state)),
        "what they have written went with their sandboxes",
    )
    assert world.apps() == ["zenml-pipeline-surroundings"]
    # The spec's own folder is the source root where nothing else is said.
    assert "r.yaml" in one["files"] and "diamond.py" in one["files"]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "mode", ["per_step", pytest.param("pipeline", marks=pytest.mark.exhaustive)]
)
def test_a_step_that_empties_its_temporary_folder_and_its_home(world: World, mode: str) -> None:
    spec = "pipeline: emptying.emptying\ntarget: local\n"
    # The Python of this machine may be below /root.
    home = "docker: {environment: {HOME: /home/me}}"
    spec += f"settings: {{orchestrator: {{mode: {mode}}}, {home}}}\n"
    done = world.submit(spec)
    # What the next step's process writes last arrives all the same.
    assert done.exit_code == 1, done.stderr
    assert "empty | all is empty" in done.stdout and "leave | the next step 1" in done.stdout
    assert world.only_run().statuses == {"empty": "completed", "leave": "failed"}
    again = world.submit(spec, "--set", "parameters.whole=true")
    assert again.exit_code == 1, again.stderr
    statuses = {"empty": "completed", "leave": "failed"}
    assert world.runs()[-1].statuses == statuses, again.stderr


@pytest.mark.parametrize(
    ("mode", "home"),
    [
        ("per_step", "/root"),
        pytest.param("pipeline", "/root", marks=pytest.mark.exhaustive),
        pytest.param("pipeline", "/home/me", marks=pytest.mark.exhaustive),
    ],
)
def test_a_volume_below_the_home_keeps_a_cache(world: World, mode: str, home: str) -> None:
    spec = f"""
pipeline: caching.caching
target: local
settings:
  docker: {{environment: {{HOME: {home}}}}}
  orchestrator: {{mode: {mode}, volumes: {{models: {home}/.cache}}}}
"""
    assert world.modal("volume", "create", "models").exit_code == 0

    first, second = world.submit(spec), world.submit(spec)

    assert (first.exit_code, second.exit_code) == (0, 0), first.stderr + second.stderr
    assert "keep | found [] below " in first.stdout
    assert "keep | found ['model.bin'] below " in second.stdout
    # The sandbox's, and so never the user's own.
    assert re.findall(r"below (.*)", second.stdout) == [home]
