"""What is remembered of a submission, and when it still holds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modalrun.plan.conditions import Conditions
from modalrun.plan.deployment import CompiledStep, Deployment, read_snapshot
from modalrun.plan.image_layers import GATHERED
from modalrun.plan.stack import Component, StackDescription
from modalrun.run.records import CreatedRun
from modalrun.run.source import Source
from modalrun.spec.precedence import Origin, SettingsLayer
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import plan_cache, reuse
from modalrun.util.inputs import Inputs
from tests.unit.plan.test_deployment_file import snapshot

STACK = StackDescription("st", "prod", (Component("artifact_store", "s3", "s3"),), "https://z.test")
CONDITIONS = Conditions("0.98.0", "pr", {"st": "monday"}, {"s0": "key"}, "digest", True, False)
PACKAGES = {"packages": [{"origin": "requirements", "lines": ["numpy==2"]}], "apt": ["git"]}


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, and conditions without ZenML."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    fake = SimpleNamespace(conditions_of=lambda compiled, target: CONDITIONS)
    monkeypatch.setitem(sys.modules, "modalrun.zenml_api.compiling.conditions", fake)


@pytest.fixture
def spec(tmp_path: Path, load: Callable[[str], RunSpec]) -> RunSpec:
    (tmp_path / "training.py").write_text("")
    os.utime(tmp_path / "training.py", (1e9, 1e9))
    return load("pipeline: training.pipeline\ntarget: local\n")


def deployment() -> Deployment:
    """A deployment as it is compiled: with labels, a component and gathered packages."""
    labels = {"": {"timeout": "run spec, pipeline"}, "s1": {"gpu": "step in code"}}
    made = read_snapshot(snapshot(), labels=labels)
    return replace(
        made,
        layers={**made.layers, Origin.COMPONENT: SettingsLayer({"cloud": "aws"})},
        docker={**made.docker, GATHERED: PACKAGES},
        notes=("a note",),
    )


def remember(
    spec: RunSpec,
    *,
    inputs: Inputs | None = None,
    made: Deployment | None = None,
    stack: StackDescription = STACK,
    files: Mapping[str, str] | None = None,
    began: float | None = None,
    snapshot_id: str | None = "sn",
) -> reuse.Remembered | None:
    parts = {
        "deployment": made or deployment(),
        "stack_description": stack,
        "inputs": inputs,
        "named_id": None,
    }
    run = CreatedRun("id", "name", None, {}, snapshot_id=snapshot_id)
    tree = Source("tree", {"training.py": "1"} if files is None else dict(files))
    reuse.remember(
        "key",
        spec,
        cast("Any", SimpleNamespace(**parts)),
        run,
        tree,
        began=time.time() if began is None else began,
    ).join()
    return reuse.recall("key", spec)


def test_a_deployment_is_the_same_again(spec: RunSpec) -> None:
    found = remember(spec)
    assert found is not None
    assert found.deployment(snapshot()) == deployment()
    assert (found.snapshot, found.tree) == ("sn", "tree")
    assert (found.conditions, found.description) == (CONDITIONS, STACK)


def test_a_step_with_docker_settings_of_its_own(spec: RunSpec) -> None:
    content = snapshot()
    content["step_configurations"]["s1"]["config"]["settings"]["docker"] = {"apt_packages": ["jq"]}
    made = read_snapshot(content)
    own = {**(made.steps[1].docker or {}), GATHERED: {"packages": [], "apt": ["jq"]}}
    steps = (made.steps[0], replace(made.steps[1], docker=own))
    made = replace(made, docker={**made.docker, GATHERED: PACKAGES}, steps=steps)

    found = remember(spec, made=made)

    assert found is not None
    assert found.deployment(content) == made


def test_no_value_of_the_environment_is_stored(spec: RunSpec, tmp_path: Path) -> None:
    docker = {"environment": {"TOKEN": "hunter2"}, GATHERED: PACKAGES}
    layers = {Origin.SPEC_PIPELINE: SettingsLayer({"timeout": 60}, docker=docker)}
    step = CompiledStep(deployment().steps[0].planned, layers, docker)
    assert remember(spec, made=replace(deployment(), layers=layers, docker=docker, steps=(step,)))
    (file,) = (tmp_path / "home").rglob("key.json")
    assert "hunter2" not in file.read_text() and "numpy==2" in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


def test_an_address_with_a_password_is_not_stored(spec: RunSpec) -> None:
    line = "--extra-index-url https://me:hunter2@packages.test/simple"
    gathered = {"packages": [{"origin": "requirements", "lines": [line]}], "apt": []}
    assert remember(spec, made=replace(deployment(), docker={GATHERED: gathered})) is None


def test_code_that_may_do_something_else_is_compiled_again(spec: RunSpec) -> None:
    assert remember(spec, inputs=Inputs(doubts=["training.py:3 uses 'now'"])) is None


def test_a_local_store_needs_zenml_anyway(spec: RunSpec) -> None:
    assert remember(spec, stack=replace(STACK, server=None)) is None


def test_a_run_that_the_cache_has_completed(spec: RunSpec) -> None:
    assert remember(spec, snapshot_id=None) is None


def test_too_many_files_to_record(spec: RunSpec) -> None:
    assert remember(spec, files={}) is None


def test_a_file_that_changed_while_it_was_compiled(spec: RunSpec, tmp_path: Path) -> None:
    began = time.time()
    (tmp_path / "training.py").write_text("x = 1\n")
    assert remember(spec, began=began) is None


def test_a_file_outside_of_the_source_tree_has_changed(spec: RunSpec, tmp_path: Path) -> None:
    found = remember(spec, inputs=Inputs({str(tmp_path / "missing.txt"): ""}))
    assert found is not None
    (tmp_path / "missing.txt").write_text("0.1")
    assert reuse.recall("key", spec) is None


def test_another_day(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remember(spec) is not None
    monkeypatch.setattr(reuse, "_today", lambda: "2999-01-01")
    assert reuse.recall("key", spec) is None
    # A deployment was compiled whenever it was.
    assert reuse.recall("key", replace(spec, own_code=False)) is not None


@pytest.mark.parametrize("damage", [None, {}, {"snapshot": "sn"}, [], "text", 1])
def test_a_damaged_entry_is_none(spec: RunSpec, damage: object) -> None:
    plan_cache.store("key", {"compiled": damage})
    assert reuse.recall("key", spec) is None
