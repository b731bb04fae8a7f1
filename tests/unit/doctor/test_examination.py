"""The checks of `modalrun doctor`, on fakes of ZenML and Modal."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modalrun.doctor.examination import CheckAccount, check_configuration, run_checks
from modalrun.doctor.findings import Findings
from modalrun.doctor.zenml_checks import ZenMLChecks
from modalrun.errors import (
    AuthenticationError,
    ConnectionLostError,
    ModalrunError,
    NotFoundError,
    UsageError,
)
from modalrun.modal_api.account_check import AccountNeeds
from modalrun.plan.deployment import CompiledStep, Deployment
from modalrun.plan.stack import Component, StackDescription
from modalrun.run.run_plan import PlannedStep, Target
from modalrun.spec.precedence import Origin, SettingsLayer
from modalrun.spec.run_spec import RunSpec
from modalrun.util import check, reachability
from modalrun.util.check import LABELS, Finding
from modalrun.zenml_api import config_files

TOKEN = ("ak-1", "as-1")
REMOTE = StackDescription(
    "1", "prod", (Component("artifact_store", "s3", "s3"),), "https://zenml.test"
)
DEPLOYMENT = Deployment(
    pipeline="training",
    steps=(CompiledStep(PlannedStep("load")), CompiledStep(PlannedStep("train", ("load",)))),
)


class FakeZenML:
    """Answers as `zenml_api.health` does. An attribute that is an error is raised."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {
            "login": "user 'me', project 'default'",
            "stack_of": ("stack", TOKEN),
            "describe_stack": REMOTE,
            "round_trip": "s3 (s3, s3://bucket)",
            "check_image": Finding("image", "ok", "python:3.11"),
            **answers,
        }

    def __getattr__(self, name: str) -> Callable[..., Any]:
        answer = self.answers[name]

        def call(*_: Any, **__: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def problem_of(self, check: str, error: Exception) -> Finding:
        return Finding.of_error(check, error)


class FakeModal:
    """Answers as `account_check.check_account` does, and keeps what it was asked."""

    def __init__(self, answer: str | Exception = "workspace 'mine'", ahead: float = 0.0) -> None:
        self.needs: AccountNeeds | None = None
        self._answer = answer
        self._ahead = ahead

    def __call__(self, needs: AccountNeeds, record_clock: Callable[[float | None], None]) -> str:
        self.needs = needs
        record_clock(self._ahead)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.fixture(autouse=True)
def _no_zenml_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """ZenML's records are in a database that is not a file here: nothing has to be reached."""
    monkeypatch.setenv("ZENML_STORE_URL", "mysql://database.test/zenml")


def run(
    *,
    zenml: FakeZenML | Exception | None = None,
    modal: CheckAccount | None = None,
    spec: RunSpec | None = None,
    compiled: Exception | Deployment = DEPLOYMENT,
    target: Target = "modal",
    stack: StackDescription = REMOTE,
) -> dict[str, Finding]:
    """Run the checks; returns the finding of each."""
    other = "local_server" if target == "modal" else "modal_account"
    left_out = {other, "spec"} | (set() if spec else {"pipeline", "source"})
    findings = Findings(
        set(LABELS) - left_out - {"python", "modalrun", "modal", "zenml"},
    )
    fake = FakeZenML() if zenml is None else zenml

    def open_zenml(_: Path) -> FakeZenML:
        if isinstance(fake, Exception):
            raise fake
        return fake

    def load(_: RunSpec) -> Any:
        if isinstance(compiled, Exception):
            raise compiled
        return SimpleNamespace(
            deployment=compiled, stack_description=stack, stack="its own stack", credentials=TOKEN
        )

    checks = ZenMLChecks(findings, spec, target, open_zenml=open_zenml, load=load)
    run_checks(findings, checks, modal or FakeModal())
    return {one.check: one for one in findings.complete(ConnectionLostError("late"))}


def states(found: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.state for name, finding in found.items()}


def test_everything_is_in_order(load: Callable[[str], RunSpec]) -> None:
    modal = FakeModal()
    found = run(modal=modal, spec=load("pipeline: project.training\n"))
    assert set(states(found).values()) == {"ok"}, found
    assert found["zenml_login"].message == "user 'me', project 'default'"
    assert found["stack"].message == "'prod': artifact store s3"
    assert found["artifact_store"].message == "s3 (s3, s3://bucket)"
    assert found["pipeline"].message == "'training', 2 steps, mode pipeline"
    dynamic = replace(DEPLOYMENT, dynamic=True, steps=())
    found = run(spec=load("pipeline: project.training\n"), compiled=dynamic)
    assert found["pipeline"].message == "'training', dynamic, mode pipeline"
    assert found["image"].message == "python:3.11"
    assert found["source"].message.startswith("1 file, ")
    assert found["modal_account"].message == "workspace 'mine'"
    assert modal.needs is not None and modal.needs.credentials == TOKEN


def test_without_a_spec_the_active_stack_is_checked() -> None:
    modal = FakeModal()
    found = run(modal=modal)
    assert set(states(found).values()) == {"ok"}, found
    assert "made from the Docker settings" in found["image"].message
    assert modal.needs == AccountNeeds(credentials=TOKEN)


@pytest.mark.parametrize(
    ("error", "code"), [(AuthenticationError("no"), 3), (ConnectionLostError("gone"), 8)]
)
def test_a_login_that_fails_skips_what_needs_it(error: ModalrunError, code: int) -> None:
    found = run(zenml=FakeZenML(login=error))
    assert (found["zenml_login"].state, found["zenml_login"].exit_code) == ("problem", code)
    for name in ("stack", "artifact_store"):
        assert found[name] == Finding(name, "skipped", "not checked: ZenML can't be asked")
    assert found["modal_account"].state == "ok"


def test_a_zenml_that_can_t_be_imported_does_not_keep_modal_from_being_checked() -> None:
    modal = FakeModal()
    found = run(zenml=ImportError("no module named zenml"), modal=modal)
    for name in ("zenml_login", "stack", "artifact_store"):
        assert found[name].state == "problem" and "no module" in found[name].message
    assert found["modal_account"].state == "ok"
    assert modal.needs == AccountNeeds()


@pytest.mark.parametrize("content", ["", "store: 5", "- 1"])
def test_a_damaged_configuration_is_a_problem_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path))
    monkeypatch.setattr(config_files, "WRITING_SECONDS", 0.0)
    (tmp_path / "config.yaml").write_text(content)
    findings = Findings(["zenml_server", "zenml_login", "stack", "modal_account"])
    check_configuration(findings)

    def open_zenml(_: Path) -> FakeZenML:
        raise AssertionError("ZenML would replace it")

    run_checks(findings, ZenMLChecks(findings, None, "modal", open_zenml=open_zenml), FakeModal())
    found = {one.check: one for one in findings.complete(ConnectionLostError("late"))}
    server = found["zenml_server"]
    assert (server.state, server.exit_code) == ("problem", 2)
    assert str(tmp_path / "config.yaml") in server.message and server.hint
    assert found["zenml_login"].state == found["stack"].state == "skipped"
    assert found["modal_account"].state == "ok"


def test_a_modal_that_refuses_does_not_keep_zenml_from_being_checked() -> None:
    found = run(modal=FakeModal(AuthenticationError("not your token")))
    assert (found["modal_account"].state, found["modal_account"].exit_code) == ("problem", 3)
    assert found["zenml_login"].state == found["stack"].state == "ok"


def test_any_error_of_the_sdk_is_a_finding() -> None:
    found = run(modal=FakeModal(RuntimeError("unexpected")), target="local")
    assert found["local_server"].message == "RuntimeError: unexpected"


def test_a_stack_that_does_not_fit_the_target() -> None:
    local = StackDescription(
        "1", "laptop", (Component("artifact_store", "a", "local", True, "/here"),)
    )
    found = run(zenml=FakeZenML(describe_stack=local))
    assert (found["stack"].state, found["stack"].exit_code) == ("problem", 2)
    assert "/here" in found["stack"].message
    # What works on this machine is no good news for Modal.
    assert found["artifact_store"].state == "warning"
    assert "works from this machine only" in found["artifact_store"].message
    found = run(zenml=FakeZenML(describe_stack=local), target="local")
    assert found["stack"].state == found["artifact_store"].state == "ok"


AMBIENT = StackDescription(
    "1", "prod", (Component("artifact_store", "s3", "s3", ambient=True),), "https://zenml.test"
)


@pytest.mark.parametrize(
    ("text", "secrets", "state"),
    [
        ("pipeline: project.training\n", [], "problem"),
        ("pipeline: project.training\n", ["aws"], "ok"),
        ("pipeline: project.training\ntarget: local\n", [], "warning"),
        (None, [], "warning"),
    ],
)
def test_a_store_that_needs_the_environment_of_this_machine(
    load: Callable[[str], RunSpec], text: str | None, secrets: list[str], state: str
) -> None:
    spec = load(text) if text else None
    found = run(
        zenml=FakeZenML(describe_stack=AMBIENT),
        spec=spec,
        compiled=replace(
            DEPLOYMENT, layers={Origin.CODE_PIPELINE: SettingsLayer({"secrets": secrets})}
        ),
        target=spec.target if spec else "modal",
        stack=AMBIENT,
    )["artifact_store"]
    assert (found.state, found.exit_code) == (state, 2 if state == "problem" else 0)
    assert ("--authentication_secret" in found.message) is (state != "ok")


def test_a_store_that_can_not_be_used_here_says_so_first() -> None:
    broken = UsageError("s3: nothing can be written to it")
    found = run(zenml=FakeZenML(describe_stack=AMBIENT, round_trip=broken))["artifact_store"]
    assert (found.state, found.message) == ("problem", broken.message)


@pytest.mark.parametrize(
    ("target", "host", "state"),
    [
        ("modal", "10.0.0.7", "warning"),
        ("local", "10.0.0.7", "ok"),
        # The stack's finding says that Modal can't reach it.
        ("modal", "127.0.0.1", "ok"),
        ("modal", "localhost", "ok"),
    ],
)
def test_a_server_with_a_private_address(
    monkeypatch: pytest.MonkeyPatch, target: Target, host: str, state: str
) -> None:
    monkeypatch.setenv("ZENML_STORE_URL", f"http://{host}:8080")
    monkeypatch.setattr(reachability, "connection_problem", lambda *_: None)
    body = json.dumps({"version": metadata.version("zenml")}).encode()
    monkeypatch.setattr(reachability, "ask", lambda *_, **__: reachability.Answer(body, None))
    found = run(target=target)["zenml_server"]
    assert found.state == state
    assert ("private address" in found.message) is (state == "warning")


@pytest.mark.parametrize("body", [b"<html>Welcome to nginx!</html>", b'{"detail": "Not Found"}'])
def test_something_else_than_a_zenml_server(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    monkeypatch.setenv("ZENML_STORE_URL", "https://zenml.test")
    monkeypatch.setattr(reachability, "connection_problem", lambda *_: None)
    monkeypatch.setattr(reachability, "ask", lambda *_, **__: reachability.Answer(body, None))
    found = run()["zenml_server"]
    assert (found.state, found.exit_code) == ("warning", 0)
    assert "not as a ZenML server does" in found.message and found.hint


def test_no_stack() -> None:
    found = run(zenml=FakeZenML(stack_of=NotFoundError("no stack 'prod'")))
    assert (found["stack"].state, found["stack"].exit_code) == ("problem", 4)
    assert "no stack to look at" in found["artifact_store"].message


def test_a_pipeline_that_fails_because_of_the_stack_is_reported_once(
    load: Callable[[str], RunSpec],
) -> None:
    error = NotFoundError("no stack 'prod'")
    found = run(
        zenml=FakeZenML(stack_of=error), compiled=error, spec=load("pipeline: project.training\n")
    )
    assert found["stack"].state == "problem"
    assert "the stack is a problem" in found["pipeline"].message


def test_a_pipeline_that_can_t_be_compiled(load: Callable[[str], RunSpec]) -> None:
    modal = FakeModal()
    found = run(
        compiled=UsageError("no such module"),
        spec=load("pipeline: project.training\n"),
        modal=modal,
    )
    assert (found["pipeline"].state, found["pipeline"].exit_code) == ("problem", 2)
    assert found["stack"].state == found["artifact_store"].state == "ok"
    assert modal.needs == AccountNeeds(credentials=TOKEN)


def test_a_pipeline_that_the_local_server_would_refuse(load: Callable[[str], RunSpec]) -> None:
    asked = {Origin.SPEC_PIPELINE: SettingsLayer({"gpu": "H10O"})}
    found = run(
        spec=load("pipeline: project.training\ntarget: local\n"),
        compiled=replace(DEPLOYMENT, layers=asked),
        target="local",
    )["pipeline"]
    assert (found.state, found.exit_code) == ("problem", 2)
    assert "H10O" in found.message


def test_a_stored_deployment_has_its_own_stack(load: Callable[[str], RunSpec]) -> None:
    never = AssertionError("the active stack is not asked for")
    found = run(zenml=FakeZenML(stack_of=never), spec=load("deployment: training-1\n"))
    assert set(states(found).values()) == {"ok"}, found


def test_an_artifact_store_that_can_t_be_written_to() -> None:
    found = run(zenml=FakeZenML(round_trip=UsageError("nothing can be written to it")))
    assert (found["artifact_store"].state, found["artifact_store"].exit_code) == ("problem", 2)
    assert found["stack"].state == "ok"


def test_an_image_with_a_warning(load: Callable[[str], RunSpec]) -> None:
    warning = Finding("image", "warning", "no Docker is here")
    found = run(zenml=FakeZenML(check_image=warning), spec=load("pipeline: project.training\n"))
    assert found["image"] == warning


def test_the_clock_of_modal_is_compared_even_if_the_token_is_refused() -> None:
    found = run(modal=FakeModal(AuthenticationError("expired"), ahead=60.0))
    assert found["clock"].state == "warning" and "60 s ahead of Modal" in found["clock"].message


def test_modal_is_checked_while_the_artifact_store_hangs() -> None:
    checked = threading.Event()

    class HangingStore(FakeZenML):
        def round_trip(self, _: Any) -> str:
            # Returns once Modal has been checked, and never if one waited for the other.
            assert checked.wait(60)
            return "answered at last"

    def modal(_: AccountNeeds, __: Callable[[float | None], None]) -> str:
        checked.set()
        return "there"

    found = run(zenml=HangingStore(), modal=modal)
    assert found["artifact_store"].message == "answered at last"


def test_the_exit_code_is_that_of_the_first_problem() -> None:
    found = run(
        zenml=FakeZenML(login=ConnectionLostError("gone")),
        modal=FakeModal(AuthenticationError("no")),
    )
    assert check.exit_code(found.values()) == 3
