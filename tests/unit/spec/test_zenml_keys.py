"""ZenML's own keys: a value is refused before ZenML is imported only if ZenML refuses it, too."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from modalrun.spec.zenml_keys import DockerKeys, ModelKeys, RetryKeys, RunKeys, StepKeys
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
def test_what_is_refused_here_zenml_refuses_too(ours: type[BaseModel]) -> None:
    theirs = zenmls(ours)
    required = {"name": "x"} if ours is ModelKeys else {}
    told = []
    for key in ours.model_fields:
        assert key in theirs.model_fields, key
        for value in VALUES:
            given = {**required, key: value}
            if refuses(ours, given) and not refuses(theirs, given):
                told.append(given)
    assert told == []


@pytest.mark.parametrize("ours", [DockerKeys, ModelKeys, RetryKeys])
def test_keys_that_are_all_known_are_those_of_the_installed_zenml(ours: type[BaseModel]) -> None:
    assert set(ours.model_fields) == set(zenmls(ours).model_fields)


def test_zenmls_keys_and_our_keys_are_told_at_once(tmp_path: Path) -> None:
    text = """\
enable_cache: 7
retry: {max_retries: many, dely: 1}
model: tiny
tags: {a: b}
settings:
  orchestrator: {timeout: soon}
  docker: {apt_packages: git, parent_imag: x}
steps:
  train: {enable_cache: 7, environment: {TOKEN: 17}, experiment_tracker: [x]}
"""
    path = tmp_path / "run.yaml"
    told = mistakes(tmp_path, PIPELINE + text).message.replace(f"{path}:", "").split("\n")

    assert told == [
        "2: 'enable_cache' has to be true or false, not 7.",
        "3: 'retry.max_retries' has to be a whole number, not 'many'.",
        "3: unknown key 'dely' under 'retry'. Did you mean 'delay'?",
        "4: 'model' has to be a mapping (key: value), not 'tiny'.",
        "5: 'tags' has to be a list, not a mapping.",
        "7: 'settings.orchestrator.timeout' has to be a whole number, not 'soon'.",
        "8: unknown key 'parent_imag' under 'settings.docker'. Did you mean 'parent_image'?",
        "8: 'settings.docker.apt_packages' has to be a list, not 'git'.",
        "10: 'steps.train.enable_cache' has to be true or false, not 7.",
        "10: 'steps.train.experiment_tracker' has to be true or false or a text, not a list.",
        # A variable may hold a secret.
        "10: 'steps.train.environment.TOKEN' has to be a text.",
    ]
