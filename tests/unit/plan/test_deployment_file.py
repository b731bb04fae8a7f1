"""Deployment files: they are read as they were written, and damaged ones are refused."""

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modalrun.errors import UsageError
from modalrun.plan import deployment_file
from modalrun.plan.deployment import Deployment, read_snapshot
from modalrun.plan.deployment_file import DeploymentFile
from modalrun.plan.image_layers import GATHERED
from modalrun.plan.model import RUN_SANDBOX
from modalrun.plan.stack import Component, StackDescription
from modalrun.spec.precedence import Origin, SettingsLayer

DOCKER = {"apt_packages": ["git"], GATHERED: {"packages": [], "apt": ["git", "curl"]}}


def snapshot(steps: int = 2) -> dict[str, Any]:
    """The part of ZenML's snapshot that is read."""

    def step(number: int) -> dict[str, Any]:
        own = {"orchestrator:default": {"gpu": "T4"}} if number else {}
        return {
            "spec": {"upstream_steps": [f"s{number - 1}"] if number else []},
            "config": {"settings": {"docker": {"apt_packages": ["git"]}}, "retry": None},
            "step_config_overrides": {"settings": own},
        }

    return {
        "pipeline_configuration": {
            "name": "p",
            "execution_mode": "stop_on_failure",
            "settings": {
                "orchestrator:default": {"timeout": 60},
                "resources": {"cpu_count": 2.0},
                "docker": {"apt_packages": ["git"]},
            },
        },
        "step_configurations": {f"s{i}": step(i) for i in range(steps)},
    }


@pytest.fixture
def held() -> DeploymentFile:
    made = read_snapshot(snapshot(), labels={"": {"timeout": "run spec, pipeline"}})
    written = {**made.layers, Origin.COMPONENT: SettingsLayer({"cloud": "aws"})}
    return DeploymentFile(
        deployment=Deployment(made.pipeline, made.steps, written, DOCKER, ("a note",)),
        snapshot=snapshot(),
        stack=StackDescription(
            "id", "prod", (Component("artifact_store", "s3", "s3"),), "https://z"
        ),
        zenml_version="0.98.0",
        source_root=".",
        target="modal",
        source_code="def p(): ...",
    )


@pytest.fixture
def file(tmp_path: Path, held: DeploymentFile) -> Path:
    path = tmp_path / "deployment.json"
    deployment_file.write(path, held)
    (tmp_path / "training.py").touch()
    return path


def change(file: Path, **changes: Any) -> None:
    envelope = json.loads(file.read_text())
    file.write_text(json.dumps({**envelope, **changes}))


def test_what_is_written_is_read(file: Path, held: DeploymentFile) -> None:
    found = deployment_file.read(file)
    assert found.snapshot == held.snapshot
    assert found.stack == held.stack
    assert found.zenml_version == "0.98.0"
    assert found.deployment.steps == held.deployment.steps
    assert found.deployment.docker == DOCKER
    assert found.deployment.notes == ("a note",)
    top = found.deployment.layers[Origin.CODE_PIPELINE]
    assert (top.get("timeout"), top.get("cpu_count")) == (60, 2.0)
    assert top.labels == {"timeout": "deployment file: run spec, pipeline"}
    assert found.deployment.layers[Origin.COMPONENT].get("cloud") == "aws"


def test_only_its_owner_can_read_it(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_nothing_is_left_beside_it(file: Path) -> None:
    (file.parent / "training.py").unlink()
    assert list(file.parent.iterdir()) == [file]


def test_the_same_deployment_gives_the_same_bytes(
    file: Path, held: DeploymentFile, tmp_path: Path
) -> None:
    again = tmp_path / "again.json"
    deployment_file.write(again, held)
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON, or it is cut off"),
        ("{", "cut off"),
        ("[1]", "not a deployment file"),
        ('{"format": "other"}', "not a deployment file"),
        ("\x00\xff", "not JSON"),
    ],
)
def test_not_a_deployment_file(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=words) as caught:
        deployment_file.read(path)
    assert caught.value.exit_code == 2
    assert "Compile" in str(caught.value.hint)


def test_a_misspelt_file(file: Path) -> None:
    with pytest.raises(UsageError, match="There is no deployment file") as caught:
        deployment_file.read(file.with_name(f"{file.stem}s.json"))
    assert caught.value.hint == f"Did you mean '{file}'?"


def test_another_version(file: Path) -> None:
    change(file, version=2, modalrun="9.9")
    with pytest.raises(UsageError, match=r"version 2, written by modalrun 9\.9.*reads version 1"):
        deployment_file.read(file)


def test_half_a_file(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UsageError, match="cut off"):
        deployment_file.read(file)


def test_changed_content(file: Path) -> None:
    file.write_text(file.read_text().replace('"timeout":60', '"timeout":6000'))
    with pytest.raises(UsageError, match="damaged or was changed by hand"):
        deployment_file.read(file)


def test_content_that_is_not_a_snapshot(tmp_path: Path, held: DeploymentFile) -> None:
    path = tmp_path / "x.json"
    broken = DeploymentFile(
        held.deployment, {"pipeline_configuration": {}}, held.stack, "0.98.0", ".", "modal"
    )
    deployment_file.write(path, broken)
    with pytest.raises(UsageError, match="The deployment is damaged"):
        deployment_file.read(path)


def test_missing_file_and_folder(tmp_path: Path, held: DeploymentFile) -> None:
    with pytest.raises(UsageError, match="There is no deployment file"):
        deployment_file.read(tmp_path / "none.json")
    with pytest.raises(UsageError, match="can't be written"):
        deployment_file.write(tmp_path / "none" / "x.json", held)


def test_plan_of_a_file_imports_neither_sdk(file: Path) -> None:
    code = (
        "import json, sys\n"
        "from modalrun.cli import run\n"
        "code = run(['plan', sys.argv[1], '--target', 'local', '--gpu', 'H100'])\n"
        "print('modules', json.dumps([code, sorted({m.partition('.')[0] for m in sys.modules})]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
    )
    exit_code, modules = json.loads(done.stdout.partition("modules ")[2])
    assert (exit_code, done.stderr) == (0, "")
    assert not {"zenml", "modal", "rich"} & set(modules)
    assert "H100" in done.stdout


def test_its_images_are_planned_as_submit_builds_them(file: Path) -> None:
    from modalrun.spec.run_spec import load_spec
    from modalrun.submit.prepare import plan_spec

    # A file that says which Python has compiled it.
    file.write_text(file.read_text().replace(' "checksum"', ' "python": "3.9",\n "checksum"'))
    images = plan_spec(load_spec(file, target="local")).plan.images.values()
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert {str(image.base) for image in images} == {f"debian slim, Python {here}"}


def test_settings_of_the_spec_are_above_those_of_the_file(file: Path, tmp_path: Path) -> None:
    from modalrun.spec.run_spec import load_spec
    from modalrun.submit.prepare import plan_spec

    path = tmp_path / "run.yaml"
    path.write_text(
        "deployment: deployment.json\ntarget: local\nsettings:\n  orchestrator: {timeout: 30}\n"
        "steps:\n  s0:\n    settings:\n      resources: {memory: 1GiB}\n"
    )
    plan = plan_spec(load_spec(path)).plan
    assert plan.run_sandbox.timeout == 30
    assert plan.run_sandbox.resources.memory == 1024
    assert plan.run_sandbox.resources.cpu == 2
    assert plan.run_sandbox.resources.gpu == "T4"
    assert plan.run_sandbox.cloud == "aws"
    assert plan.sandbox_origins[RUN_SANDBOX]["timeout"].source == "run spec, pipeline"
    assert plan.sandbox_origins[RUN_SANDBOX]["cloud"].source == "deployment file: component"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("parameters: {a: 1}\n", "parameters"),
        ("steps: {s0: {parameters: {a: 1}}}\n", "steps.s0.parameters"),
        ("settings: {experiment_tracker: {a: 1}}\n", "settings.experiment_tracker"),
    ],
)
def test_what_is_compiled_cant_be_changed(tmp_path: Path, text: str, key: str) -> None:
    from modalrun.spec.run_spec import load_spec

    path = tmp_path / "run.yaml"
    path.write_text(f"deployment: deployment.json\n{text}")
    with pytest.raises(UsageError, match=f"'{key}' is compiled into the deployment"):
        load_spec(path)


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("gpuu: A100\n", "gpuu"),
        ("steps: {s0: {retries: 1}}\n", "retries"),
        ("settings: {orchestrater: {a: 1}}\n", "orchestrater"),
    ],
)
def test_an_unknown_key_is_reported_once(tmp_path: Path, text: str, unknown: str) -> None:
    from modalrun.spec.run_spec import load_spec

    path = tmp_path / "run.yaml"
    path.write_text(f"deployment: deployment.json\n{text}")
    with pytest.raises(UsageError, match=f"unknown key '{unknown}'") as caught:
        load_spec(path)
    assert "compiled into" not in str(caught.value)


def test_a_step_that_the_file_doesnt_have(file: Path, tmp_path: Path) -> None:
    from modalrun.spec.run_spec import load_spec
    from modalrun.submit.prepare import plan_spec

    path = tmp_path / "run.yaml"
    path.write_text("deployment: deployment.json\ntarget: local\nsteps: {s: {}}\n")
    with pytest.raises(UsageError, match="the pipeline 'p' has no step 's'"):
        plan_spec(load_spec(path))


def test_a_run_name_with_a_placeholder_that_the_file_doesnt_have(
    file: Path, tmp_path: Path
) -> None:
    from modalrun.spec.run_spec import load_spec
    from modalrun.submit.prepare import plan_spec

    path = tmp_path / "run.yaml"
    path.write_text("deployment: deployment.json\ntarget: local\nrun_name: 'x-{who}'\n")
    with pytest.raises(UsageError, match=r"yaml:3: 'run_name': .*'\{who\}'"):
        plan_spec(load_spec(path))


def test_docker_settings_of_the_spec_replace_what_was_gathered(file: Path, tmp_path: Path) -> None:
    from modalrun.spec.run_spec import load_spec
    from modalrun.submit.prepare import plan_spec

    path = tmp_path / "run.yaml"
    text = "deployment: deployment.json\ntarget: local\n"
    path.write_text(text)
    plan = plan_spec(load_spec(path)).plan
    assert plan.images[plan.run_sandbox.image].apt_packages == ("git", "curl")
    path.write_text(f"{text}settings: {{docker: {{requirements: [numpy]}}}}\n")
    plan = plan_spec(load_spec(path)).plan
    image = plan.images[plan.run_sandbox.image]
    assert image.apt_packages == ("git",)
    assert any("numpy" in group.lines for group in image.packages)
