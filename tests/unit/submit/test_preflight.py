"""Check a run before anything is created."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from modalrun.errors import AuthenticationError, CostLimitError, NotFoundError, UsageError
from modalrun.localmodal import launcher
from modalrun.plan.stack import Component, StackDescription
from modalrun.run.run_plan import PlannedStep
from modalrun.spec.run_spec import RunSpec
from modalrun.submit.preflight import Job, check
from modalrun.submit.prepare import plan_deployment
from tests.unit.fake_zenml import compiled
from tests.unit.fakes import Effects, FakeModal, FakeObserver

Load = Callable[[str], RunSpec]
LOCAL = "pipeline: project.training\ntarget: local\n"
MODAL = "pipeline: project.training\ntarget: modal\n"
REMOTE = StackDescription("st-1", "remote", server="https://zenml.example.org")
ON_THIS_MACHINE = StackDescription(
    "st-2",
    "laptop",
    (Component("artifact_store", "files", "local", local_path="/home/me"),),
    server="https://zenml.example.org",
)


@pytest.fixture
def modal() -> FakeModal:
    return FakeModal(Effects())


def test_a_run_that_can_be_created(
    load: Load, modal: FakeModal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "status", lambda: {"lenient": True})
    observer = FakeObserver()
    pipeline = compiled(PlannedStep("load"), PlannedStep("train", ("load",)), cloud="nebula")
    job = check(load(LOCAL), pipeline, observer, modal=modal)
    assert modal.effects == ["connect local", "check names", "check workspace"]
    assert job.steps == ("load", "train")
    assert [line for line in observer.lines if line.startswith("note: ") and "nebula" in line]


@pytest.mark.parametrize("server", [{"lenient": False}, None])
def test_what_a_strict_local_server_refuses(
    load: Load, modal: FakeModal, monkeypatch: pytest.MonkeyPatch, server: dict[str, bool] | None
) -> None:
    monkeypatch.setattr(launcher, "status", lambda: server)
    with pytest.raises(UsageError, match=r"'H1000' .* mean 'H100'.* Nothing was created"):
        check(load(LOCAL), compiled(gpu="H1000"), FakeObserver(), modal=modal)
    job = check(load(MODAL), compiled(stack=REMOTE, gpu="H1000"), FakeObserver(), modal=modal)
    assert isinstance(job, Job), "Modal may have it by now"


def test_names_and_workspace_that_the_plan_uses(load: Load, modal: FakeModal) -> None:
    pipeline = compiled(
        stack=REMOTE, secrets=["token"], volumes={"data": "/data"}, workspace="acme"
    )
    check(load(MODAL), pipeline, FakeObserver(), modal=modal)
    assert modal.needs is not None
    assert modal.needs.secrets == ("token",)
    assert modal.needs.volumes == ("data",)
    assert modal.needs.workspace == ("acme", "pipeline in code")


@pytest.mark.parametrize("target", [LOCAL, MODAL])
def test_a_run_above_the_cost_limit_never_connects(
    load: Load, modal: FakeModal, target: str
) -> None:
    pipeline = compiled(stack=REMOTE, gpu="H100")
    with pytest.raises(CostLimitError, match="Nothing was created"):
        check(load(target), pipeline, FakeObserver(), Decimal("0.01"), modal=modal)
    assert not modal.effects


def test_a_run_below_the_cost_limit(load: Load, modal: FakeModal) -> None:
    job = check(load(LOCAL), compiled(), FakeObserver(), Decimal(100), modal=modal)
    assert isinstance(job, Job)


def test_a_stack_that_modal_cant_use(load: Load, modal: FakeModal) -> None:
    with pytest.raises(UsageError) as caught:
        check(load(MODAL), compiled(stack=ON_THIS_MACHINE), FakeObserver(), modal=modal)
    assert "'laptop'" in caught.value.message
    assert "/home/me" in caught.value.message
    assert modal.effects[0] == "connect modal"


AMBIENT = StackDescription(
    "st-3", "prod", (Component("artifact_store", "s3", "s3", ambient=True),), "http://10.0.0.7"
)


def test_a_store_that_needs_the_environment_of_this_machine(load: Load, modal: FakeModal) -> None:
    with pytest.raises(UsageError, match=r"'prod'.*\n.*no credentials of its own"):
        check(load(MODAL), compiled(stack=AMBIENT), FakeObserver(), modal=modal)
    job = check(load(MODAL), compiled(stack=AMBIENT, secrets=["a"]), FakeObserver(), modal=modal)
    assert isinstance(job, Job)
    # A sandbox of the local server has the same machine, which may have a role in a cloud.
    observer = FakeObserver()
    check(load(LOCAL), compiled(stack=AMBIENT), observer, modal=modal)
    assert [line for line in observer.lines if "no credentials of its own" in line]


def test_what_the_plan_warns_of(load: Load) -> None:
    made = compiled(stack=AMBIENT)
    priced = plan_deployment(made.deployment, made.stack_description, load(MODAL))
    assert priced.problems == ()
    assert [note for note in priced.notes if "'submit' will refuse this run: The artifact" in note]
    assert [note for note in priced.notes if "http://10.0.0.7 has a private address" in note]
    local = plan_deployment(made.deployment, made.stack_description, load(LOCAL))
    assert not [note for note in local.notes if "private" in note or "refuse" in note]


def test_a_folder_of_the_path_must_not_hide_a_module_either(load: Load) -> None:
    made, spec = compiled(), load(LOCAL)
    (spec.source_root / "src").mkdir()
    (spec.source_root / "src" / "yaml.py").write_text("")
    plan_deployment(made.deployment, made.stack_description, spec)
    deployment = replace(made.deployment, docker={"environment": {"PYTHONPATH": "src"}})
    with pytest.raises(UsageError, match=r"src/yaml\.py hides the module 'yaml'"):
        plan_deployment(deployment, made.stack_description, spec)


def test_the_same_stack_on_the_local_server(load: Load, modal: FakeModal) -> None:
    check(load(LOCAL), compiled(stack=ON_THIS_MACHINE), FakeObserver(), modal=modal)


def test_all_that_is_missing_is_told_at_once(load: Load, modal: FakeModal) -> None:
    modal.effects.errors["connect modal"] = AuthenticationError(
        "There is no Modal token.", effect="Nothing was created.", hint="Run 'modal setup'."
    )
    with pytest.raises(AuthenticationError, match="no Modal token") as caught:
        check(load(MODAL), compiled(stack=ON_THIS_MACHINE), FakeObserver(), modal=modal)
    assert "'laptop' can't be used" in caught.value.message
    assert caught.value.message.count("Nothing was created.") == 1
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("Run 'modal setup'.\nUse a stack")
    assert "'modalrun doctor'" in caught.value.hint

    del modal.effects.errors["connect modal"]
    modal.effects.errors["check names"] = NotFoundError("There is no secret 'token'.")
    modal.effects.errors["check workspace"] = UsageError("The token is of another workspace.")
    with pytest.raises(NotFoundError, match=r"(?s)'token'.*another workspace"):
        check(load(MODAL), compiled(stack=REMOTE), FakeObserver(), modal=modal)


def test_a_secret_that_does_not_exist(load: Load, modal: FakeModal) -> None:
    modal.effects.errors["check names"] = NotFoundError("There is no secret 'token'.")
    with pytest.raises(NotFoundError, match="token"):
        check(load(LOCAL), compiled(secrets=["token"]), FakeObserver(), modal=modal)


def test_the_environment_is_known_by_its_name(
    load: Load, modal: FakeModal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(tmp_path / "none.toml"))
    monkeypatch.delenv("MODAL_ENVIRONMENT", raising=False)
    job = check(load(MODAL), compiled(stack=REMOTE), FakeObserver(), modal=modal)
    assert job.plan.settings.modal_environment == "main", "the workspace's default one"
    monkeypatch.setenv("MODAL_ENVIRONMENT", "dev")
    job = check(load(MODAL), compiled(stack=REMOTE), FakeObserver(), modal=modal)
    assert job.plan.settings.modal_environment == "dev"
    assert job.plan.origins["modal_environment"].source == "MODAL_ENVIRONMENT"
    assert modal.needs is not None
    assert modal.needs.environment == "dev"
    named = compiled(stack=REMOTE, modal_environment="mine")
    job = check(load(MODAL), named, FakeObserver(), modal=modal)
    assert job.plan.settings.modal_environment == "mine"
