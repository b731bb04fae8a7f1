"""A pipeline is submitted without a run spec, or with the one of the folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import Result, World

pytestmark = pytest.mark.e2e

TRAINING = """\
import argparse
import sys

from zenml import pipeline, step

# A script that parses its command line when it is imported.
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=3)
EPOCHS = parser.parse_args().epochs
print("imported as", sys.argv, file=sys.stderr)


@step
def train(rate: float, name: str) -> None:
    print(f"TRAINED {name} {EPOCHS} x {rate}")


@pipeline
def training(rate: float = 0.1, name: str = "x") -> None:
    train(rate, name)
"""


@pytest.fixture
def folder(world: World) -> Path:
    folder = world.root / "own"
    folder.mkdir()
    (folder / "training.py").write_text(TRAINING)
    return folder


def modalrun(world: World, folder: Path, *arguments: str) -> Result:
    return world.start([sys.executable, "-m", "modalrun", *arguments], cwd=folder).finish()


def test_a_pipeline_of_a_file_with_its_own_command_line(world: World, folder: Path) -> None:
    options = ("--param", "rate=0.2", "--gpu", "A100", "--target", "local")
    done = modalrun(world, folder, "submit", "training.py:training", *options)
    assert done.exit_code == 0, done.stderr
    assert "TRAINED x 3 x 0.2" in done.stdout
    assert f"imported as ['{folder / 'training.py'}']" in done.stderr
    assert [sandbox.gpu for sandbox in world.sandboxes()] == ["A100"]


def test_the_run_spec_of_the_folder_is_taken_and_named(world: World, folder: Path) -> None:
    (folder / "modalrun.yaml").write_text("pipeline: training.training\ntarget: local\n")
    planned = modalrun(world, folder, "plan", "--gpu", "T4")
    assert (planned.exit_code, "T4" in planned.stdout) == (0, True), planned.stderr
    assert planned.stderr.startswith("Using modalrun.yaml\n")
    compiled = modalrun(world, folder, "compile", "-o", "deployment.json")
    assert (compiled.exit_code, (folder / "deployment.json").exists()) == (0, True), compiled.stderr
    assert world.runs() == []


@pytest.mark.exhaustive
def test_a_module_of_a_package_from_its_parent(world: World, folder: Path) -> None:
    (folder / "project").mkdir()
    (folder / "training.py").rename(folder / "project" / "training.py")
    options = ("--target", "local", "--mode", "per_step")
    done = modalrun(world, folder, "submit", "project.training:training", *options)
    assert done.exit_code == 0, done.stderr
    assert "TRAINED x 3 x 0.1" in done.stdout
