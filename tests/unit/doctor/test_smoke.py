"""`modalrun smoke`: what it does before its question."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from modalrun.cli.smoke import smoke as command
from modalrun.doctor import smoke
from modalrun.errors import UsageError
from modalrun.plan import deployment_file
from modalrun.plan.deployment import read_snapshot
from modalrun.plan.deployment_file import DeploymentFile
from modalrun.plan.model import Plan
from modalrun.plan.stack import StackDescription
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import prepare
from modalrun.zenml_api import trial
from modalrun.zenml_api.compiling import image_builds
from tests.unit.plan.test_deployment_file import snapshot


def test_zenml_builds_no_image_before_the_question(
    monkeypatch: pytest.MonkeyPatch, load: Callable[[str], RunSpec]
) -> None:
    built: list[Any] = []

    def resolve_images(plan: Plan, _: object) -> tuple[Plan, None]:
        built.append(plan)
        return plan, None

    compiled = SimpleNamespace(
        deployment=None, stack_description=None, stack=None, credentials=None
    )
    plan = SimpleNamespace(run_sandbox=SimpleNamespace(regions=()))
    priced = SimpleNamespace(plan=plan, check_stack=lambda: None)
    monkeypatch.setattr(prepare, "load_deployment", lambda *_, **__: compiled)
    monkeypatch.setattr(prepare, "plan_deployment", lambda *_: priced)
    monkeypatch.setattr(trial, "environment", lambda _: {})
    monkeypatch.setattr(image_builds, "resolve_images", resolve_images)

    planned = smoke._plan(load("pipeline: project.training\n"), None, has_spec=True)

    assert built == []
    assert planned.resolve(cast("Plan", plan)) == (plan, None)
    assert built == [plan]


@pytest.mark.parametrize("named", ["d.json", "run.yaml"])
def test_the_target_of_a_deployment_file_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    stack, steps = StackDescription("id", "default"), snapshot()
    file = DeploymentFile(read_snapshot(steps), steps, stack, "0.98.0", ".", "local")
    deployment_file.write(tmp_path / "d.json", file)
    (tmp_path / "run.yaml").write_text("deployment: d.json\n")
    monkeypatch.setattr(smoke, "planned", Mock(side_effect=RuntimeError("it goes on")))

    # Nobody can be asked here.
    with pytest.raises(RuntimeError, match="it goes on"):
        command(spec=tmp_path / named)
    with pytest.raises(UsageError, match="nobody can be asked"):
        command(spec=tmp_path / named, target="modal")
