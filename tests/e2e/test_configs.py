"""Every run spec in `configs/` is planned and runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

EXPECTED: dict[str, dict[str, Any]] = {
    "simple_gpu": {"gpu": "A100", "timeout": 1800},
    "advanced": {"gpu": "A100", "cpu": 16, "memory_mib": 30518, "regions": ["us-east"]},
    "per_step_mixed": {"gpu": None},
    "multi_gpu": {"gpu": None},
    "async": {"gpu": None, "timeout": 3600},
    "environments_dev": {"gpu": "T4"},
    "environments_prod": {"gpu": "H100:2", "other_gpus": ["A100-80GB:2"]},
    "diamond": {},
    "quickstart": {"cpu": 2, "memory_mib": 1908, "timeout": 600},
}
STEPS = {
    "per_step_mixed": {"preprocess_data": None, "train_model": "A100", "evaluate_model": "T4"},
    "multi_gpu": dict.fromkeys(("load", "left", "right", "join"), "A100:4"),
}


def test_every_config_is_here() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(EXPECTED)


def some(names: Iterable[str], *default: str) -> list[Any]:
    """Parameters of which the default suite runs a few; each run takes ten seconds."""
    return [n if n in default else pytest.param(n, marks=pytest.mark.exhaustive) for n in names]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", EXPECTED)
def test_plan(world: World, name: str) -> None:
    command = [sys.executable, "-m", "modalrun", "plan", str(CONFIGS / f"{name}.yaml")]
    done = world.start([*command, "--output", "json"]).finish()
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert EXPECTED[name].items() <= found["run_sandbox"].items()
    boxes = {step["name"]: step["sandbox"] for step in found["steps"] if step["sandbox"]}
    assert {step: box["gpu"] for step, box in boxes.items()} == STEPS.get(name, {})


ENVIRONMENTS = {
    "advanced": "production",
    "environments_dev": "dev",
    "environments_prod": "production",
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", STEPS)
def test_run_with_a_sandbox_for_each_step(world: World, name: str) -> None:
    done = world.popen(CONFIGS / f"{name}.yaml").finish(300)
    assert done.exit_code == 0, done.stderr
    gpus = {
        box.tags["modalrun-step"]: f"{box.gpu}:{box.gpu_count}" if box.gpu_count > 1 else box.gpu
        for box in world.sandboxes()
        if box.tags["modalrun-role"] == "step"
    }
    assert gpus == {step: gpu or "" for step, gpu in STEPS[name].items()}


@pytest.mark.parametrize("name", some(sorted(set(EXPECTED) - set(STEPS)), "advanced"))
def test_run(world: World, name: str) -> None:
    if environment := ENVIRONMENTS.get(name):
        assert world.modal("environment", "create", environment).exit_code == 0
    done = world.submit(CONFIGS / f"{name}.yaml")
    assert done.exit_code == 0, done.stderr
    if name == "async":
        world.wait_until(lambda: world.only_run().status == "completed", "the run completed")
    (sandbox,) = world.sandboxes()
    if name == "advanced":
        assert (sandbox.app_name, sandbox.environment) == ("ml-training-prod", "production")
        assert (sandbox.milli_cpu, sandbox.milli_cpu_max) == (16_000, 32_000)
        assert (sandbox.memory_mb, sandbox.memory_mb_max) == (30_518, 61_036)
