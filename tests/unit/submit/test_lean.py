"""Submissions without ZenML, against answers of its server by a script."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modalrun.errors import ServerError, UsageError
from modalrun.plan import deployment_file
from modalrun.plan.conditions import Conditions
from modalrun.plan.deployment import read_snapshot
from modalrun.plan.deployment_file import DeploymentFile
from modalrun.plan.image_layers import GATHERED
from modalrun.plan.stack import Component, StackDescription
from modalrun.run.records import Placeholder
from modalrun.run.source import Source
from modalrun.run.values import adapter
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import lean, plan_cache, reuse
from modalrun.submit.lean import LeanSubmission, create_run, find
from modalrun.submit.preflight import check
from modalrun.submit.source.selection import select
from modalrun.submit.source.staging import stage
from modalrun.submit.source.tree import SourceSelection
from modalrun.submit.submission import Submission
from modalrun.zenml_api import rest
from modalrun.zenml_api.rest.session import RefusedError
from modalrun.zenml_api.rest.settings import Unusual
from tests.unit.fake_zenml import FakeZenML
from tests.unit.fakes import Effects, FakeModal, FakeObserver
from tests.unit.plan.test_deployment_file import snapshot

ZENML = version("zenml")
STACK = StackDescription("st", "prod", (Component("artifact_store", "s3", "s3"),), "https://z.test")
CONDITIONS = Conditions(
    ZENML, "pr", {"st": "monday", "or": "monday"}, {"s0": "key"}, "", False, False
)

Load = Callable[[str], RunSpec]
Write = Callable[..., None]


class Session:
    """A session that answers by `answers`, or raises; `asked` has each request and its body."""

    run_page: Any = rest.session.Session.run_page

    def __init__(self) -> None:
        self.settings = SimpleNamespace(url="https://z.test", verify=True, timeout=30.0)
        self.info = {"version": ZENML, "auth_scheme": "OAUTH2_PASSWORD_BEARER"}
        self.info |= {"deployment_type": "other", "server_url": ""}
        self.project = {"id": "pr", "name": "team"}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        orchestrator = {"id": "or", "name": "default", "body": {"updated": "monday"}}
        self.answers: dict[str, Any] = {
            "GET /stacks/st": {
                "id": "st",
                "body": {"updated": "monday"},
                "metadata": {"components": {"orchestrator": [orchestrator]}},
            },
            "GET /pipeline_snapshots/sn": {
                "body": {"is_dynamic": False},
                "metadata": {**snapshot(), "run_name_template": "p-{date}-{time}"},
                "resources": {"stack": {"id": "st"}},
            },
            "GET /pipeline_snapshots": {"items": [{"id": "named"}]},
            "GET /steps": {"total": 0},
            "GET /pipelines": {"total": 1, "items": [{"id": "pi"}]},
            "POST /pipeline_snapshots": {"id": "new"},
            "POST /runs": [{"id": "ru", "name": "p-1"}, True],
            "GET /api_token": "token",
            "POST /run-metadata": None,
            "PUT /runs/ru": {"body": {"status": "provisioning"}},
            "GET /runs/ru": {"body": {"status": "initializing"}},
        }

    def get(self, path: str, **query: Any) -> Any:
        return self._answer(f"GET {path}", query)

    def post(self, path: str, body: Any) -> Any:
        return self._answer(f"POST {path}", body)

    def put(self, path: str, body: Any) -> Any:
        return self._answer(f"PUT {path}", body)

    def body(self, request: str) -> dict[str, Any]:
        """What was sent with a request."""
        return next(body for asked, body in self.asked if asked == request)

    def _answer(self, request: str, body: Any) -> Any:
        self.asked.append((request, body))
        answer = self.answers[request]
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session in a home folder of the test's own."""
    made = Session()
    monkeypatch.setattr(lean, "connect", lambda folder: made)
    monkeypatch.setenv("HOME", str(tmp_path.parent / f"{tmp_path.name}-home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path / "zenml"))
    monkeypatch.setenv("ZENML_STORE_URL", "https://z.test")
    for name in ("ZENML_LOCAL_STORES_PATH", "ZENML_ANALYTICS_OPT_IN", "ZENML_USER_ID"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture
def spec(session: Session, tmp_path: Path, load: Load) -> RunSpec:
    """A run spec whose pipeline was compiled before."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "training.py").write_text("")
    made = load("pipeline: training.pipeline\ntarget: local\nsource_root: src\n")
    remember(made, tmp_path)
    return made


def remember(spec: RunSpec, tmp_path: Path, **changed: Any) -> None:
    tree = stage(select(SourceSelection(spec.source_root)), tmp_path / "staged").digest
    deployment = read_snapshot(snapshot())
    layers = {"": deployment.layers, **{step.name: step.layers for step in deployment.steps}}
    entry = reuse.Remembered(
        snapshot="sn",
        named=None,
        tree=tree,
        inputs={},
        day=reuse._today(),
        conditions=CONDITIONS,
        description=STACK,
        layers={name: {int(k): v for k, v in found.items()} for name, found in layers.items()},
        gathered={"": {"packages": [], "apt": []}},
        notes=(),
    )
    stored = adapter(reuse.Remembered).dump_python(replace(entry, **changed), mode="json")
    plan_cache.store("key", {"compiled": stored})


def found(spec: RunSpec, tmp_path: Path) -> LeanSubmission | None:
    return find(spec, "key", tmp_path / "zenml")


def usual(spec: RunSpec, tmp_path: Path) -> LeanSubmission:
    submission = found(spec, tmp_path)
    assert submission is not None
    return submission


@pytest.fixture
def reasons(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Why ZenML's own client is needed."""
    caplog.set_level(logging.INFO)
    return lambda: caplog.text


def same_tree(submission: LeanSubmission) -> Source:
    return Source(str(submission.compiled.tree), {})


def test_a_run_of_a_stored_snapshot(spec: RunSpec, session: Session, tmp_path: Path) -> None:
    submission = usual(spec, tmp_path)
    assert [request for request, _ in session.asked if not request.startswith("GET")] == []

    run = submission.create_run(same_tree(submission), Placeholder())

    body = session.body("POST /runs")
    assert body["snapshot"] == "sn" and body["status"] == "initializing"
    assert body["name"].startswith("p-20") and body["project"] == "pr"
    assert (run.id, run.name, run.snapshot_id) == ("ru", "p-1", "sn")
    assert run.url == "https://z.test/projects/team/runs/ru"
    assert run.environment["ZENML_STORE_API_TOKEN"] == "token"
    assert run.environment["ZENML_ACTIVE_STACK_ID"] == "st"
    assert run.environment["MODALRUN_ORCHESTRATOR_RUN_ID"] == body["orchestrator_run_id"]
    assert session.body("GET /api_token") == {
        "token_type": "workload",
        "pipeline_run_id": "ru",
    }
    assert "ZENML_LOCAL_STORES_PATH" not in run.environment


def test_it_is_created_as_any_other(spec: RunSpec, session: Session, tmp_path: Path) -> None:
    submission = usual(spec, tmp_path)
    effects = Effects()
    zenml = FakeZenML(effects, "initializing")
    compiled = cast("Any", submission.compiled)
    job = check(spec, compiled, FakeObserver(), modal=FakeModal(effects))
    made = Submission(job, FakeObserver(), zenml)

    run = made.create(lambda one: create_run(spec, compiled, submission, made.source, one))

    assert made.handle is not None and run.snapshot_id == "sn"
    made.handle.recording.join()


@pytest.mark.parametrize(
    ("request_", "answer", "reason"),
    [
        ("GET /stacks/st", KeyError("the stack is gone"), "the stack is gone"),
        ("GET /pipeline_snapshots/sn", KeyError("it is gone"), "it is gone"),
        (
            "GET /pipeline_snapshots/sn",
            {"body": {}, "metadata": {}, "resources": {"stack": None}},
            "snapshot's stack is gone",
        ),
        ("GET /stacks/st", Unusual("refuses the credentials"), "refuses the credentials"),
        ("GET /stacks/st", RefusedError("no permission", 403), "no permission"),
        ("GET /steps", {"total": 1}, "cache has a step"),
    ],
)
def test_what_the_server_answers_is_left_to_zenml(
    *,
    spec: RunSpec,
    session: Session,
    tmp_path: Path,
    reasons: Callable[[], str],
    request_: str,
    answer: Any,
    reason: str,
) -> None:
    session.answers[request_] = answer
    assert found(spec, tmp_path) is None
    assert reason in reasons()


def test_a_changed_stack_is_left_to_zenml(
    spec: RunSpec, session: Session, tmp_path: Path, reasons: Callable[[], str]
) -> None:
    session.answers["GET /stacks/st"]["body"]["updated"] = "tuesday"
    assert found(spec, tmp_path) is None
    assert "stack has changed" in reasons()


def test_another_server_version_is_left_to_zenml(
    spec: RunSpec, session: Session, tmp_path: Path, reasons: Callable[[], str]
) -> None:
    session.info["version"] = "9.9.9"
    assert found(spec, tmp_path) is None
    assert "versions of ZenML" in reasons()


@pytest.mark.parametrize(
    "variable", ["ZENML_PREVENT_CLIENT_SIDE_CACHING", "ZENML_PIPELINE_RUN_API_TOKEN_EXPIRATION"]
)
def test_variables_that_change_zenmls_client(
    spec: RunSpec, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    assert found(spec, tmp_path) is None


def test_without_a_server_nothing_is_asked(
    spec: RunSpec, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZENML_STORE_URL")
    assert found(spec, tmp_path) is None
    assert session.asked == []


@pytest.mark.parametrize("name", ["training.py", "helper.py"])
def test_a_changed_or_new_file_is_compiled(
    spec: RunSpec, session: Session, tmp_path: Path, reasons: Callable[[], str], name: str
) -> None:
    (tmp_path / "src" / name).write_text("x = 1\n")
    assert found(spec, tmp_path) is None
    assert "source tree has changed" in reasons()


def test_a_file_that_changes_at_the_last_moment(
    spec: RunSpec, session: Session, tmp_path: Path
) -> None:
    submission = usual(spec, tmp_path)
    with pytest.raises(UsageError, match="changed while"):
        submission.create_run(Source("other", {}), Placeholder())
    assert "POST /runs" not in dict(session.asked)


def test_a_run_without_a_token_is_told(spec: RunSpec, session: Session, tmp_path: Path) -> None:
    submission = usual(spec, tmp_path)
    session.answers["GET /api_token"] = RefusedError("no", 403)
    with pytest.raises(ServerError, match="ru"):
        submission.create_run(same_tree(submission), placeholder := Placeholder())
    assert placeholder.run_id == "ru"


def test_a_snapshot_that_is_named_must_be_the_same(
    session: Session, tmp_path: Path, load: Load
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "training.py").write_text("")
    spec = load("deployment: nightly\ntarget: local\nsource_root: src\n")
    remember(spec, tmp_path, named="named")
    assert found(spec, tmp_path) is not None
    assert session.body("GET /pipeline_snapshots")["name"] == "equals:nightly"
    for items in ([{"id": "other"}], [], [{"id": "named"}, {"id": "other"}]):
        session.answers["GET /pipeline_snapshots"] = {"items": items}
        assert found(spec, tmp_path) is None


class TestFile:
    """A deployment file, of which nothing is known from an earlier submission."""

    @pytest.fixture
    def write(self, tmp_path: Path) -> Write:
        """Write the file, with a source tree."""
        (tmp_path / "run.yaml").write_text("")

        def write(**changed: Any) -> None:
            made = read_snapshot(snapshot())
            file = DeploymentFile(
                replace(made, docker={**made.docker, GATHERED: {"packages": [], "apt": []}}),
                {**snapshot(), "run_name_template": "p-{date}"},
                STACK,
                ZENML,
                ".",
                "local",
                conditions=CONDITIONS,
            )
            deployment_file.write(tmp_path / "p.json", replace(file, **changed))

        return write

    def test_it_is_stored_and_run(
        self, session: Session, tmp_path: Path, load: Load, write: Write
    ) -> None:
        write()
        spec = load("deployment: p.json\ntarget: local\nrun_name: mine\nenable_cache: false\n")
        submission = usual(spec, tmp_path)
        assert "GET /steps" not in dict(session.asked)

        run = submission.create_run(None, Placeholder())

        body = session.body("POST /pipeline_snapshots")
        assert (body["pipeline"], body["stack"], body["project"]) == ("pi", "st", "pr")
        assert body["pipeline_configuration"]["enable_cache"] is False
        assert session.body("POST /runs")["name"] == "mine"
        assert (run.snapshot_id, session.body("POST /runs")["snapshot"]) == ("new", "new")

    def test_settings_of_the_spec_are_stored_with_it(
        self, session: Session, tmp_path: Path, load: Load, write: Write
    ) -> None:
        write()
        spec = load("deployment: p.json\ntarget: local\nsettings: {orchestrator: {timeout: 120}}\n")
        submission = usual(spec, tmp_path)
        submission.create_run(None, Placeholder())
        settings = session.body("POST /pipeline_snapshots")["pipeline_configuration"]["settings"]
        assert settings["orchestrator:default"]["timeout"] == 120

    @pytest.mark.parametrize(
        "changed",
        [
            {"conditions": None},
            {"conditions": replace(CONDITIONS, zenml="0.90.0")},
            {"conditions": replace(CONDITIONS, built=True)},
            {
                "stack": replace(
                    STACK, components=(Component("artifact_store", "a", "local", True, "/x"),)
                )
            },
        ],
    )
    def test_unusual_files(
        self, session: Session, tmp_path: Path, load: Load, write: Write, changed: dict[str, Any]
    ) -> None:
        write(**changed)
        assert found(load("deployment: p.json\ntarget: local\n"), tmp_path) is None

    def test_docker_settings_of_the_spec_need_zenml(
        self, session: Session, tmp_path: Path, load: Load, write: Write
    ) -> None:
        write()
        text = "deployment: p.json\ntarget: local\nsettings: {docker: {apt_packages: [jq]}}\n"
        assert found(load(text), tmp_path) is None

    def test_a_new_pipeline_is_left_to_zenml(
        self, session: Session, tmp_path: Path, load: Load, write: Write
    ) -> None:
        write()
        submission = usual(load("deployment: p.json\ntarget: local\n"), tmp_path)
        session.answers["GET /pipelines"] = {"total": 0, "items": []}
        with pytest.raises(Unusual):
            submission.create_run(None, Placeholder())


def test_it_does_not_import_zenml() -> None:
    code = "import sys, modalrun.submit.submission; print('zenml' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, text=True) == "False\n"
