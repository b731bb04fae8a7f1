"""What a rerun is made from, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from modalrun.control.rerun import plan_rerun, spec_of_rerun
from modalrun.errors import NotFoundError, UsageError
from modalrun.plan.stack import StackDescription
from modalrun.run.metadata import RunMetadata
from modalrun.run.records import DeploymentRecord
from modalrun.run.source import Source
from modalrun.spec.overrides import Override, command_line, param_option, set_option
from modalrun.spec.precedence import Origin
from modalrun.spec.run_spec import RunSpec
from modalrun.spec.spec_record import SpecRecord
from modalrun.submit import prepare
from modalrun.submit.source.selection import select
from modalrun.submit.source.staging import stage
from modalrun.submit.source.tree import SourceSelection
from tests.unit.fake_zenml import FakeZenML
from tests.unit.fakes import RUN_ID, Effects

METADATA = RunMetadata("local", "pipeline", "an-app", "ap-1", "sb-1")
SNAPSHOT = "99999999-2222-3333-4444-555555555555"
FILE = {"pipeline": "training.training", "settings": {"orchestrator": {"gpu": "T4"}}}


@pytest.fixture
def zenml() -> FakeZenML:
    """A failed run of a local target, whose spec and files are recorded."""
    fake = FakeZenML(Effects(), "failed")
    fake.run = replace(fake.run, metadata=METADATA)
    fake.source = Source("0" * 64, root="/elsewhere")
    record = SpecRecord({}).with_keys(FILE, command_line([param_option("rate=0.1")]))
    fake.deployment = DeploymentRecord(SNAPSHOT, "st-1", record.to_environment())
    return fake


def spec_of(zenml: FakeZenML, *overrides: Override, **options: bool) -> RunSpec:
    return spec_of_rerun(RUN_ID, overrides, zenml=zenml, **options)


def test_without_other_code_it_is_the_deployment_of_the_run(zenml: FakeZenML) -> None:
    spec = spec_of(zenml, set_option("settings.orchestrator.gpu=A100"))
    assert (spec.deployment, spec.pipeline, spec.target) == (SNAPSHOT, "", "local")
    assert not spec.own_code
    assert spec.rerun is not None
    assert not spec.rerun.compiles
    assert spec.rerun.source is not None
    assert spec.root_hint.startswith("It was submitted from /elsewhere. Run the command in")
    assert spec_of(zenml, set_option("target=modal")).target == "modal"


@pytest.mark.parametrize(
    "option",
    [
        "parameters.rate=0.2",
        "steps.train.parameters.rate=0.2",
        "steps.train={retry: {max_retries: 1}}",
        "execution_mode=fail_fast",
        "settings.experiment_tracker.nested=true",
        "settings={experiment_tracker.mlflow: {nested: true}}",
        "steps.train.settings.experiment_tracker.nested=true",
        'settings."experiment_tracker.mlflow".experiment_name=second',
        "stack=st-1",
    ],
)
def test_what_is_compiled_in_takes_the_spec_of_the_run(zenml: FakeZenML, option: str) -> None:
    spec = spec_of(zenml, set_option(option))
    assert (spec.deployment, spec.pipeline, spec.stack) == (None, "training.training", "st-1")
    assert spec.rerun is not None
    assert spec.rerun.compiles
    # The files must be as they were.
    assert spec.rerun.source is not None


@pytest.mark.parametrize("option", ["settings={docker: {}}", "steps.train.settings.docker.user=me"])
def test_settings_of_sandboxes_need_no_spec_of_the_run(zenml: FakeZenML, option: str) -> None:
    assert spec_of(zenml, set_option(option)).deployment == SNAPSHOT


def test_another_stack_is_compiled_for(zenml: FakeZenML) -> None:
    spec = spec_of(zenml, set_option("stack=cloud"))
    assert (spec.deployment, spec.pipeline, spec.stack) == (None, "training.training", "cloud")


def test_its_own_command_line_holds_unless_it_is_overridden(zenml: FakeZenML) -> None:
    kept = spec_of(zenml, param_option("epochs=3"))
    assert kept.run_configuration["parameters"] == {"rate": 0.1, "epochs": 3}
    changed = spec_of(zenml, param_option("rate=0.2"))
    assert changed.run_configuration["parameters"] == {"rate": 0.2}


@pytest.mark.parametrize(
    "option",
    [
        "steps.train.settings.orchestrator.modal.gpu=T4",
        "settings.step_operator.modal.gpu=T4",
        "settings.docker.requirements=[torch]",
    ],
)
def test_settings_of_sandboxes_are_no_reason_to_compile(zenml: FakeZenML, option: str) -> None:
    assert spec_of(zenml, set_option(option)).deployment == SNAPSHOT


def test_texts_of_the_stored_spec_name_no_variables_of_this_machine(zenml: FakeZenML) -> None:
    file = {**FILE, "environment": {"CACHE": "${HOME}/cache"}}
    record = SpecRecord({}).with_keys(file, command_line([param_option("tags=['$${HOME}']")]))
    zenml.deployment = DeploymentRecord(SNAPSHOT, "st-1", record.to_environment())
    literals = spec_of(zenml, new_code=True).source.literals
    assert {"${HOME}/cache", "${HOME}"} <= literals


def test_a_plan_refuses_a_stack_that_the_run_could_not_have(
    zenml: FakeZenML, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = StackDescription("st-1", "default", ())
    priced = SimpleNamespace(problems=("its artifact store is local",), stack=stack)
    rerun = SimpleNamespace(skipped=())
    compiled = SimpleNamespace(deployment=None, stack_description=stack, rerun=rerun)
    monkeypatch.setattr(prepare, "load_deployment", lambda spec, *, looks: compiled)
    monkeypatch.setattr(prepare, "plan_deployment", lambda *_, **options: priced)
    with pytest.raises(UsageError, match="its artifact store is local"):
        plan_rerun(spec_of(zenml))


@pytest.mark.parametrize("new_code", [False, True])
def test_a_plan_says_which_files_go(
    zenml: FakeZenML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, new_code: bool
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / ".env").write_text("KEY=value")
    zenml.source = stage(select(SourceSelection(root, include=(".env",))), tmp_path / "copy")
    priced = SimpleNamespace(
        problems=(), notes=("a note",), source=SourceSelection(root, include=(".env",))
    )
    rerun = SimpleNamespace(skipped=())
    compiled = SimpleNamespace(deployment=None, stack_description=None, rerun=rerun)
    monkeypatch.setattr(prepare, "load_deployment", lambda spec, *, looks: compiled)
    monkeypatch.setattr(prepare, "plan_deployment", lambda *_, **options: priced)
    assert plan_rerun(spec_of(zenml, new_code=new_code))[1] == (
        "note: a note",
        "note: these credential files go along: .env (environment variables, often secrets)",
        f"source: 1 file, 9 B from {root}/",
    )


def test_new_code_takes_any_files(zenml: FakeZenML) -> None:
    zenml.source = None
    spec = spec_of(zenml, new_code=True)
    assert spec.pipeline == "training.training"
    assert spec.rerun is not None
    assert spec.rerun.source is None


def test_a_run_that_is_not_over_is_refused(zenml: FakeZenML) -> None:
    for status in ("running", "paused", "initializing"):
        zenml.run = replace(zenml.run, status=status)
        with pytest.raises(UsageError, match="is not over") as caught:
            spec_of(zenml)
        assert f"'modalrun stop {RUN_ID}'" in str(caught.value.hint)
        assert f"'modalrun resume {RUN_ID}'" in str(caught.value.hint)


def test_what_was_not_recorded_is_named(zenml: FakeZenML) -> None:
    zenml.deployment = replace(zenml.deployment, environment={})
    with pytest.raises(UsageError, match="no run spec is stored") as caught:
        spec_of(zenml, new_code=True)
    assert "Run its script, or" in str(caught.value.hint)
    assert "'modalrun submit FILE.py:PIPELINE --target local'" in str(caught.value.hint)
    zenml.deployment = replace(zenml.deployment, pipeline="flows.daily:training")
    zenml.run = replace(zenml.run, metadata=replace(METADATA, target="modal"))
    with pytest.raises(UsageError, match="no run spec is stored") as caught:
        spec_of(zenml, param_option("rate=0.5"))
    assert "'modalrun submit flows.daily:training'" in str(caught.value.hint)
    zenml.source = None
    with pytest.raises(UsageError, match="no record of the files") as caught:
        spec_of(zenml)
    assert "'modalrun submit flows.daily:training'" in str(caught.value.hint)
    environment = SpecRecord(FILE).to_environment()
    zenml.deployment = replace(zenml.deployment, environment=environment)
    with pytest.raises(UsageError, match="no record of the files") as caught:
        spec_of(zenml)
    assert "--new-code" in str(caught.value.hint)
    zenml.deployment = replace(zenml.deployment, stack=None)
    with pytest.raises(NotFoundError, match="The stack of the run"):
        spec_of(zenml)
    zenml.run = replace(zenml.run, metadata=None)
    with pytest.raises(UsageError, match="modalrun did not start it"):
        spec_of(zenml)
    zenml.run = replace(zenml.run, parent="a-parent")
    with pytest.raises(UsageError, match="runs again with its parent") as caught:
        spec_of(zenml)
    assert "'modalrun rerun a-parent'" in str(caught.value.hint)


def test_the_source_root_is_here(
    zenml: FakeZenML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert spec_of(zenml).source_root == tmp_path
    other = tmp_path / "other"
    other.mkdir()
    given = Override("--source-root", ("source_root",), str(other))
    assert spec_of(zenml, given).source_root == other
    assert spec_of(zenml, given, new_code=True).source_root == other


def test_it_waits_unless_it_is_told_not_to(zenml: FakeZenML) -> None:
    flags = [set_option("settings.orchestrator.synchronous=false")]
    record = SpecRecord({}).with_keys(FILE, command_line(flags))
    zenml.deployment = replace(zenml.deployment, environment=record.to_environment())
    at = Origin.COMMAND_LINE
    for new_code in (False, True):
        assert spec_of(zenml, new_code=new_code).layers[at].settings["synchronous"] is True
        spec = spec_of(zenml, *flags, new_code=new_code)
        assert spec.layers[at].settings["synchronous"] is False
