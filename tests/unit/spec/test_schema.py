"""ZenML's keys: modalrun refuses only values that ZenML refuses, and reports unknown keys."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from modalrun.spec.run_spec import RunSpec
from modalrun.spec.schema import DockerKeys, ModelKeys, RetryKeys, RunKeys, StepKeys
from unit.specs import PIPELINE, mistakes

VALUES = [
    *(True, 7, 0, -1, 1.5, "", "x", "yes", "inline", "fail_fast", "pip", "pip_freeze", "default"),
    *([], ["a"], [1], [{"name": "a"}], {}, {"a": 1}, {"a": "b"}, {"name": "x"}, {"name": 5}),
    *({"max_retries": "many"}, {"delay": -1}, {"max_retries": 2, "backoff": 1.5}),
]


def refuses(model: type[BaseModel], values: dict[str, Any]) -> bool:
    try:
        model.model_validate(values)
    except ValidationError:
        return True
    except (TypeError, ValueError, KeyError, AttributeError):
        # ZenML's own validators take for granted what they get.
        return True
    return False


def zenmls(ours: type[BaseModel]) -> type[BaseModel]:
    from zenml.config import DockerSettings
    from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
    from zenml.config.retry_config import StepRetryConfig
    from zenml.config.step_configurations import StepConfigurationUpdate
    from zenml.model.model import Model

    return {
        RunKeys: PipelineRunConfiguration,
        StepKeys: StepConfigurationUpdate,
        DockerKeys: DockerSettings,
        ModelKeys: Model,
        RetryKeys: StepRetryConfig,
    }[ours]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ours", [RunKeys, StepKeys, DockerKeys, ModelKeys, RetryKeys])
def test_zenml_refuses_every_value_that_the_schema_refuses(ours: type[BaseModel]) -> None:
    theirs = zenmls(ours)
    required = {"name": "x"} if ours is ModelKeys else {}
    refused_here_only = []
    for key in ours.model_fields:
        assert key in theirs.model_fields, key
        for value in VALUES:
            given = {**required, key: value}
            if refuses(ours, given) and not refuses(theirs, given):
                refused_here_only.append(given)
    assert refused_here_only == []


@pytest.mark.parametrize("ours", [DockerKeys, ModelKeys, RetryKeys])
def test_keys_are_those_of_the_installed_zenml(ours: type[BaseModel]) -> None:
    assert set(ours.model_fields) == set(zenmls(ours).model_fields)


def test_mistakes_in_zenmls_keys_and_our_keys_are_reported_together(tmp_path: Path) -> None:
    text = """\
enable_cache: 7
retry: {max_retries: many, dely: 1}
model: tiny
tags: {a: b}
settings:
  orchestrator: {timeout: soon}
  docker: {apt_packages: git, parent_imag: x}
steps:
  train: {enable_cache: 7, environment: {TOKEN: [17]}, experiment_tracker: [x]}
"""
    path = tmp_path / "run.yaml"
    lines = mistakes(tmp_path, PIPELINE + text).message.replace(f"{path}:", "").split("\n")

    assert lines == [
        "2: 'enable_cache' must be true or false, not 7.",
        "3: 'retry.max_retries' must be a whole number, not 'many'.",
        "3: unknown key 'dely' under 'retry'. Did you mean 'delay'?",
        "4: 'model' must be a mapping (key: value), not 'tiny'.",
        "5: 'tags' must be a list, not a mapping.",
        "7: 'settings.orchestrator.timeout' must be a whole number of seconds, or a duration such"
        " as '90s', '2h' or '1h30m', not 'soon'.",
        "8: unknown key 'parent_imag' under 'settings.docker'. Did you mean 'parent_image'?",
        "8: 'settings.docker.apt_packages' must be a list, not 'git'.",
        "10: 'steps.train.enable_cache' must be true or false, not 7.",
        "10: 'steps.train.experiment_tracker' must be true or false or a string, not a list.",
        # A variable may hold a secret.
        "10: 'steps.train.environment.TOKEN' must be a string.",
    ]


# Keys that the lists don't have.

UNKNOWN = [
    ("gravity: 1\n", "gravity"),
    ("steps:\n  train: {gravity: 1}\n", "steps.train.gravity"),
    ("settings: {docker: {gravity: 1}}\n", "settings.docker.gravity"),
    ("settings: {resources: {gravity: 1}}\n", "settings.resources.gravity"),
    ("settings: {gravity.newton: {g: 1}}\n", "settings.gravity.newton"),
    ("model: {name: m, gravity: 1}\n", "model.gravity"),
    ("steps:\n  train: {retry: {gravity: 1}}\n", "steps.train.retry.gravity"),
]
MISSPELT = [
    ("enable_cahce: true\n", "enable_cache"),
    ("steps:\n  train: {parameter: {}}\n", "parameters"),
    ("settings: {docker: {apt_package: []}}\n", "apt_packages"),
    ("settings: {resources: {cpu_cuont: 1}}\n", "cpu_count"),
    ("settings: {dokcer: {}}\n", "docker"),
    ("settings: {step_operater.vertex: {}}\n", "step_operator"),
    ("model: {nam: m}\n", "name"),
    ("retry: {dely: 1}\n", "delay"),
]


@pytest.fixture
def zenml_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a version of ZenML look installed."""

    def install(version: str) -> None:
        info = tmp_path / "site" / "zenml-0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: zenml\nVersion: {version}\n")
        monkeypatch.syspath_prepend(str(info.parent))

    return install


@pytest.mark.parametrize("text", [text for text, _ in UNKNOWN])
def test_an_unknown_key_is_refused_if_zenml_is_no_newer_than_the_lists(
    tmp_path: Path, zenml_version: Callable[[str], None], text: str
) -> None:
    zenml_version("0.95.0")
    error = mistakes(tmp_path, PIPELINE + text)
    assert "unknown key 'gravity" in error.message


@pytest.mark.parametrize(("text", "key"), UNKNOWN)
def test_an_unknown_key_goes_to_a_newer_zenml_with_a_note(
    load: Callable[[str], RunSpec], zenml_version: Callable[[str], None], text: str, key: str
) -> None:
    zenml_version("0.99.1")
    (note,) = load(PIPELINE + text).notes
    assert f"ZenML 0.98.0 has no key '{key}'" in note
    assert "passed to ZenML 0.99.1 unchecked" in note


def test_a_key_of_a_newer_zenml_reaches_zenml(
    load: Callable[[str], RunSpec], zenml_version: Callable[[str], None]
) -> None:
    zenml_version("0.99.1")
    text = "gravity: 1\nsettings: {docker: {gravity: 2}}\nsteps:\n  train: {gravity: 3}\n"
    assert load(PIPELINE + text).run_configuration == {
        "gravity": 1,
        "settings": {"docker": {"gravity": 2}},
        "steps": {"train": {"gravity": 3}},
    }


@pytest.mark.parametrize("version", ["0.98.0", "0.99.1"])
@pytest.mark.parametrize(("text", "close"), MISSPELT)
def test_a_misspelt_key_is_refused_with_any_zenml(
    tmp_path: Path, zenml_version: Callable[[str], None], version: str, text: str, close: str
) -> None:
    zenml_version(version)
    error = mistakes(tmp_path, PIPELINE + text)
    assert "unknown key" in error.message
    assert f"Did you mean '{close}'?" in f"{error.message} {error.hint}"


def test_modalruns_own_keys_are_refused_with_any_zenml(
    tmp_path: Path, zenml_version: Callable[[str], None]
) -> None:
    zenml_version("0.99.1")
    for text in ("settings: {orchestrator: {gravity: 1}}\n", "modal: {gravity: 1}\n"):
        assert "unknown key 'gravity'" in mistakes(tmp_path, PIPELINE + text).message
