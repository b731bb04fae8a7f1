"""No value of a user's environment, and no password in a URL, is stored or shown.

What a run stores stands in ZenML, which every user of the server reads; what is shown ends up in
logs of CI jobs. `CANARY` must be in none of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.errors import ModalrunError, UsageError, without_credentials
from modalrun.output import plan_json, plan_text
from modalrun.spec.overrides import set_option
from modalrun.spec.run_spec import load_spec
from modalrun.submit.preflight import check
from modalrun.submit.prepare import plan_deployment
from modalrun.submit.source.tree import SourceSelection, SourceTree
from modalrun.submit.submission import Submission
from tests.security.growth import assert_linear
from tests.unit.fake_zenml import FakeZenML, compiled
from tests.unit.fakes import Effects, FakeModal, FakeObserver

CANARY = "s3cr3t-canary"

DOCKER: dict[str, Any] = {
    "environment": {"API_KEY": CANARY},
    "runtime_environment": {"TOKEN": CANARY},
    "requirements": [
        f"thing @ git+https://user:{CANARY}@example.org/thing",
        f"--extra-index-url https://user:{CANARY}@example.org/simple",
        f"zenml==0.1 --index-url=https://user:{CANARY}@example.org/simple",
    ],
    "python_package_installer_args": {"index-url": f"https://{CANARY}@example.org/simple"},
    "parent_image": f"user:{CANARY}@registry.example.org/image:1",
    "local_project_install_command": f"pip install --index-url https://u:{CANARY}@example.org .",
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("mode", ["pipeline", "per_step"])
def test_what_a_submission_stores_and_shows(tmp_path: Path, mode: str, dynamic: bool) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "training.py").write_text("")
    path = tmp_path / "run.yaml"
    path.write_text("pipeline: training.pipeline\ntarget: local\nsource_root: src\n")
    spec = load_spec(path)
    job = compiled(mode=mode)
    object.__setattr__(job.deployment, "docker", DOCKER)
    object.__setattr__(job.deployment, "dynamic", dynamic)
    priced = plan_deployment(job.deployment, job.stack_description, spec)
    effects, shown = Effects(), FakeObserver()
    zenml, modal = FakeZenML(effects, "initializing"), FakeModal(effects)
    manifests: list[str] = []
    modal.on_create = lambda options: (
        manifests.append(options["manifest"].read_text()) if options["manifest"] else None
    )

    submission = Submission(check(spec, job, shown, modal=modal), shown, zenml)
    submission.create(zenml.create_run)
    assert submission.handle is not None
    submission.handle.recording.join()

    assert zenml.metadata
    assert len(manifests) == (mode == "per_step")
    sandboxes = [asdict(sandbox) for sandbox in submission.handle.plan.sandboxes]
    text = plan_text.lines(priced, explain="all")
    stored = [zenml.metadata, zenml.reasons, manifests, sandboxes, str(modal.request["spec"].tags)]
    tree = SourceTree(SourceSelection(tmp_path), tmp_path)
    assert CANARY not in json.dumps([*stored, shown.lines, text, plan_json.as_json(priced, tree)])
    assert CANARY not in repr(priced)
    assert any("registry.example.org" in line for line in text)


@pytest.mark.parametrize(
    "text",
    [
        "environment: 'API_KEY=s3cr3t-canary'",
        "settings: {docker: {environment: s3cr3t-canary}}",
        "steps: {train: {environment: s3cr3t-canary}}",
        "secrets: {A: s3cr3t-canary}",
        "environment: {API_KEY: s3cr3t-canary",
    ],
)
def test_mistakes_in_a_spec(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"pipeline: a.b\n{text}\n")
    with pytest.raises(UsageError) as caught:
        load_spec(path)
    assert CANARY not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "text",
    [
        f"settings.docker.environment=[{CANARY}",
        f"environment={CANARY}",
        f"environment.A={{{CANARY}",
    ],
)
def test_mistakes_in_an_override(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("pipeline: a.b\n")
    try:
        load_spec(path, overrides=[set_option(text)])
    except UsageError as error:
        assert CANARY not in f"{error} {error.hint}"
    else:
        # The value of a variable is the text as it is written.
        assert text.startswith("environment.A=")


SECRET_TEXTS = [
    f"https://user:{CANARY}@example.org/simple",
    f"https://{CANARY}@github.com/x",
    f"pip install git+https://{CANARY}:x-oauth@github.com/a/b@main#egg=b failed",
    f"http://user:{CANARY}@{CANARY}@example.org",
    f"mysql+pymysql://root:{CANARY}@db/zenml",
    f"the file /work/https:/u:{CANARY}@h/s can't be read",
    f"can't pull user:{CANARY}@registry.example.org:5000/image",
    f"GET https://example.org/simple?x=1&api_token={CANARY} 403",
    f"https://store.blob.core.windows.net/a?sv=1&sig={CANARY}&se=2",
]


@pytest.mark.parametrize("text", SECRET_TEXTS)
def test_errors(text: str) -> None:
    error = ModalrunError(text, hint=text)
    shown = [error.message, error.problem, error.hint, str(error), repr(error), str(error.args)]
    assert CANARY not in " ".join(map(str, shown))
    assert "***" in error.problem


@pytest.mark.parametrize(
    "text",
    [
        "python:3.11@sha256:0123456789abcdef",
        "git+https://github.com/a/b@v1.2",
        "registry.example.org:5000/image@sha256:0123/x",
        "mail somebody@example.org about step 'a:b'",
        "s3://bucket/a@b",
        "https://example.org/?page=2&monke=1",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert without_credentials(text) == text


@given(st.text(st.sampled_from("a:/@?&=.-+ '"), max_size=60))
def test_any_text(text: str) -> None:
    masked = without_credentials(text)
    assert without_credentials(masked) == masked


@pytest.mark.parametrize("unit", ["a", "a:", ":/", "://", "a@", "?token", "&a=", "a-", "a:b@c"])
def test_long_texts_take_linear_time(unit: str) -> None:
    assert_linear(without_credentials, lambda size: unit * (size // len(unit)), 20_000)
