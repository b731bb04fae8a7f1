"""Run specs that are accepted; the pipeline and the source root."""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from modalrun.errors import UsageError
from modalrun.spec.overrides import set_option
from modalrun.spec.precedence import Origin
from modalrun.spec.run_spec import RunSpec, load_spec, target_of_spec
from modalrun.spec.schema import RUN_KEYS, STEP_KEYS, RunKeys, StepKeys
from unit.specs import PIPELINE, line_of, mistake

Load = Callable[[str], RunSpec]


def test_minimal(load: Load, tmp_path: Path) -> None:
    spec = load(PIPELINE)
    assert spec.pipeline == "project.training.pipeline"
    assert spec.stack is None
    assert spec.target == "modal"
    assert spec.source_root == tmp_path
    assert spec.run_configuration == {}


def test_keys_of_modalrun(load: Load, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    spec = load(PIPELINE + "stack: prod\ntarget: local\nsource_root: code\nenable_cache: false\n")
    assert spec.stack == "prod"
    assert spec.target == "local"
    assert spec.source_root == tmp_path / "code"
    assert spec.run_configuration == {"enable_cache": False}, "our keys are not ZenML's"


def test_option_wins_over_the_target_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(PIPELINE + "target: modal\n", encoding="utf-8")
    assert load_spec(path, target="local").target == "local"
    assert load_spec(path).target == "modal"


def test_two_targets_of_one_command_line(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(PIPELINE, encoding="utf-8")
    local = [set_option("target=local")]
    assert load_spec(path, target="local", overrides=local).target == "local"
    with pytest.raises(UsageError, match="--set target: '--target modal' sets another one"):
        load_spec(path, target="modal", overrides=local)


def test_run_keys_are_those_of_the_installed_zenml() -> None:
    from zenml.config.pipeline_run_configuration import PipelineRunConfiguration

    assert set(PipelineRunConfiguration.model_fields) == RUN_KEYS


def test_step_keys_are_those_of_the_installed_zenml() -> None:
    from zenml.config.step_configurations import StepConfigurationUpdate

    assert set(StepConfigurationUpdate.model_fields) == STEP_KEYS


def sample(keys: type[BaseModel], key: str) -> Any:
    """Return a value that a key accepts."""
    special = {"model": {"name": "b"}, "retry": {"delay": 3}}
    for value in (special.get(key, {"a": "b"}), ["a"], True, 30, "a", "inline", "fail_fast"):
        with contextlib.suppress(ValidationError):
            keys.model_validate({key: value})
            return value
    raise AssertionError(key)


@pytest.mark.parametrize("key", sorted(RUN_KEYS - {"schedule", "build", "steps", "settings"}))
def test_run_keys_reach_zenml_unchanged(load: Load, key: str) -> None:
    value = sample(RunKeys, key)
    assert load(f"{PIPELINE}{key}: {json.dumps(value)}\n").run_configuration == {key: value}


@pytest.mark.parametrize("key", sorted(STEP_KEYS - {"settings"}))
def test_step_keys_reach_zenml_unchanged(load: Load, key: str) -> None:
    value = sample(StepKeys, key)
    text = f"{PIPELINE}steps:\n  train:\n    {key}: {json.dumps(value)}\n"
    assert load(text).run_configuration == {"steps": {"train": {key: value}}}


def test_empty_sections_set_nothing(load: Load) -> None:
    spec = load(PIPELINE + "settings:\nsteps:\n  train:\nparameters:\ntags:\n")
    assert spec.run_configuration == {"steps": {"train": {}}}


def test_anchors_and_merge_keys(load: Load) -> None:
    spec = load(
        PIPELINE
        + """\
settings:
  orchestrator: &small {gpu: T4, timeout: 60}
steps:
  train:
    settings:
      orchestrator:
        <<: *small
        gpu: A100
"""
    )
    assert spec.step_layers["train"][Origin.SPEC_STEP].settings == {"gpu": "A100", "timeout": 60}


def test_error_of_a_spec_points_at_the_key(load: Load, tmp_path: Path) -> None:
    spec = load(PIPELINE + "parameters:\n  rate: 1\n")
    error = spec.error(("parameters", "rate"), "too low.", "Raise it.")
    assert error.message == f"{tmp_path / 'run.yaml'}:3: too low."
    assert error.hint == "Raise it."


# The pipeline.


@pytest.mark.parametrize("text", ["target: local\n", "pipeline:\n", "parameters: {a: 1}\n"])
def test_missing_pipeline(tmp_path: Path, text: str) -> None:
    error = mistake(tmp_path, text)
    assert "the key 'pipeline' is missing" in error.message
    assert "pipeline: my_project" in str(error.hint)


@pytest.mark.parametrize(
    "source",
    [
        "training",
        "project/training.py",
        "./training.pipeline",
        ".training.pipeline",
        "project..training",
        "project.training:pipeline",
        "project.my-training.pipeline",
        "5.x",
        "a b.c",
    ],
)
def test_pipeline_that_is_not_a_source(tmp_path: Path, source: str) -> None:
    error = mistake(tmp_path, f"pipeline: {source}\n")
    assert line_of(error, tmp_path) == 1
    assert f"'{source}' is not a source" in error.message
    assert error.hint


def test_pipeline_that_is_a_file(tmp_path: Path) -> None:
    assert "not a source" in mistake(tmp_path, "pipeline: training.py\n").message


def test_pipeline_that_is_a_number(tmp_path: Path) -> None:
    error = mistake(tmp_path, "pipeline: 5\n")
    assert "'pipeline' must be a string, not 5" in error.message


# The source root.


def test_source_root_missing(tmp_path: Path) -> None:
    error = mistake(tmp_path, PIPELINE + "source_root: nowhere\n")
    assert line_of(error, tmp_path) == 2
    assert f"there is no folder {tmp_path / 'nowhere'}" in error.message


def test_source_root_is_a_file(tmp_path: Path) -> None:
    error = mistake(tmp_path, PIPELINE + "source_root: run.yaml\n")
    assert f"there is no folder {tmp_path / 'run.yaml'}" in error.message


def test_source_root_of_an_unknown_user(tmp_path: Path) -> None:
    error = mistake(tmp_path, PIPELINE + "source_root: ~no-such-user-0/code\n")
    assert line_of(error, tmp_path) == 2


def test_source_root_is_relative_to_the_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "configs" / "run.yaml"
    path.write_text(PIPELINE + "source_root: ..\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_spec(Path("../configs/run.yaml")).source_root == tmp_path


def test_source_root_is_the_nearest_zenml_repository(tmp_path: Path) -> None:
    (tmp_path / ".zen").mkdir()
    nested = tmp_path / "configs" / "deep"
    nested.mkdir(parents=True)
    path = nested / "run.yaml"
    path.write_text(PIPELINE, encoding="utf-8")
    assert load_spec(path).source_root == tmp_path
    (tmp_path / "configs" / ".zen").mkdir()
    assert load_spec(path).source_root == tmp_path / "configs"


def test_spec_is_frozen(load: Load) -> None:
    spec = load(PIPELINE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.target = "local"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("target: local\nsetings: {}\n", "local"),
        ("target: lokal\n", "local"),
        ("target: modal\n", "modal"),
        ("pipeline: a.b\n", "modal"),
        ("", "modal"),
    ],
)
def test_target_of_a_wrong_spec(tmp_path: Path, text: str, target: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert target_of_spec(path) == target
    assert target_of_spec(None) == "modal"


# What people write in a form of their own.


def test_a_delay_between_retries_is_a_duration(load: Load) -> None:
    spec = load(PIPELINE + "retry: {delay: 2m}\nsteps: {train: {retry: {delay: 1h30m}}}\n")
    assert spec.run_configuration["retry"] == {"delay": 120}
    assert spec.run_configuration["steps"]["train"]["retry"] == {"delay": 5400}


@pytest.mark.parametrize("name", ["a-{date}-{time}", "a-{{date}}-{{time}}"])
def test_placeholders_of_a_run_name(load: Load, name: str) -> None:
    spec = load(f"{PIPELINE}run_name: '{name}'\n")
    assert spec.run_configuration["run_name"] == "a-{date}-{time}"


@pytest.mark.parametrize("name", ["a-{}", "{date!r}", "{date:d}", "{date.year}", "{0}", "{who[0]}"])
def test_a_placeholder_of_a_run_name_is_just_a_name(tmp_path: Path, name: str) -> None:
    error = mistake(tmp_path, f"{PIPELINE}run_name: '{name}'\n")
    assert line_of(error, tmp_path) == 2
    assert f"a placeholder in '{name}' is not just a name" in error.message


def test_an_empty_run_name(tmp_path: Path) -> None:
    assert mistake(tmp_path, f"{PIPELINE}run_name: ''\n").message.endswith("'run_name' is empty.")


def test_the_placeholders_of_a_run_name_are_those_of_the_pipeline(load: Load) -> None:
    spec = load(f"{PIPELINE}run_name: x-{{who}}\n")
    spec.check_run_name("x-{who}-{time}", {"who": "me"})
    with pytest.raises(UsageError, match=r"yaml:2: 'run_name': .*'\{who\}'") as caught:
        spec.check_run_name("x-{who}", ())
    assert "{date}, {time}" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["a-{date", "a-date}", "{"])
def test_a_run_name_with_an_open_brace(tmp_path: Path, name: str) -> None:
    error = mistake(tmp_path, f"{PIPELINE}run_name: '{name}'\n")
    assert line_of(error, tmp_path) == 2
    assert f"in '{name}'" in error.message
    assert "{date}" in str(error.hint)
