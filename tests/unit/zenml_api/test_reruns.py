"""What a rerun compares, and what it must not do, before it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from zenml.config.pipeline_configurations import PipelineConfiguration
from zenml.config.step_configurations import Step, StepConfiguration, StepSpec
from zenml.models import PipelineSnapshotBase

from modalrun.errors import UsageError
from modalrun.plan.deployment import Deployment
from modalrun.spec.overrides import command_line, set_option
from modalrun.spec.run_spec import RerunRequest, RunSpec
from modalrun.zenml_api import reruns
from modalrun.zenml_api.compiling import compile

ARGUMENTS = {"size": (1, 2), "names": {7: "a"}, "folder": Path("/data")}


def snapshot(**arguments: Any) -> PipelineSnapshotBase:
    """Return what is compiled of a pipeline with one step that gets its arguments."""
    config = StepConfiguration(name="train", parameters=arguments)
    step = Step(
        spec=StepSpec(source="flow.train", upstream_steps=[], invocation_id="train"),
        config=config,
        step_config_overrides=config,
    )
    return PipelineSnapshotBase(
        run_name_template="flow",
        pipeline_configuration=PipelineConfiguration(name="flow", parameters=arguments),
        step_configurations={"train": step},
    )


def changes(
    monkeypatch: pytest.MonkeyPatch, now: PipelineSnapshotBase, *, dynamic: bool = False
) -> dict[str, str]:
    """Return what has changed since a run with `ARGUMENTS`, which ZenML has stored."""
    before = PipelineSnapshotBase.model_validate_json(snapshot(**ARGUMENTS).model_dump_json())
    store = SimpleNamespace(get_snapshot=lambda _: before)
    monkeypatch.setattr(reruns, "Client", lambda: SimpleNamespace(zen_store=store))
    compiled = SimpleNamespace(
        snapshot=now, deployment=SimpleNamespace(dynamic=dynamic), unstored={}
    )
    run = SimpleNamespace(snapshot=SimpleNamespace(id="sn-1"), config=before.pipeline_configuration)
    return reruns._changes(cast("Any", compiled), cast("Any", run), {}, cast("Any", None))


def test_arguments_that_are_stored_in_another_form_have_not_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert changes(monkeypatch, snapshot(**ARGUMENTS)) == {}
    assert changes(monkeypatch, snapshot(**ARGUMENTS), dynamic=True) == {}
    other = snapshot(**{**ARGUMENTS, "size": (1, 3)})
    assert changes(monkeypatch, other) == {"train": "its parameter 'size' has changed"}
    with pytest.raises(UsageError, match="The pipeline is dynamic"):
        changes(monkeypatch, other, dynamic=True)


def test_a_command_of_the_stored_spec_is_refused_before_it_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gathered: list[Deployment] = []

    def with_packages(one: Deployment, *_: Any, **__: Any) -> Deployment:
        gathered.append(one)
        return one

    monkeypatch.setattr(compile, "with_packages", with_packages)
    monkeypatch.setattr(compile, "describe_stack", lambda stack: None)
    docker = {"pyproject_export_command": ["touch", "x"]}
    deployment = Deployment("flow", (), docker=docker)
    spec = RunSpec.of_snapshot("local", tmp_path, own_code=True)

    def assemble(*options: str) -> None:
        given = command_line([set_option(option) for option in options])
        request = RerunRequest("a-run", compiles=True, given=given)
        none = cast("Any", None)
        compile.assemble(deployment, none, none, none, replace(spec, rerun=request))

    with pytest.raises(UsageError, match="is a command for this machine") as caught:
        assemble()
    assert "--set 'settings.docker.pyproject_export_command=VALUE'" in str(caught.value.hint)
    assert gathered == []
    assemble("settings.docker.pyproject_export_command=[touch, x]")
    assert gathered == [deployment]
