"""`modalrun smoke`: what it does before its question."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modalrun.doctor import smoke
from modalrun.plan.model import Plan
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import prepare
from modalrun.zenml_api import trial
from modalrun.zenml_api.compiling import image_builds


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
