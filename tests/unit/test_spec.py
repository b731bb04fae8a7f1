"""The run spec: what is accepted, and that every mistake gets one message that says where."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modalrun.errors import UsageError
from modalrun.precedence import Origin
from modalrun.setting_fields import SettingFields
from modalrun.spec import RUN_KEYS, STEP_KEYS, RunSpec, load_spec

PIPELINE = "pipeline: project.training.pipeline\n"
Load = Callable[[str], RunSpec]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write_and_load(text: str) -> RunSpec:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return load_spec(path)

    return write_and_load


def mistake(tmp_path: Path, text: str) -> UsageError:
    """The error of a wrong spec, checked for what every such error must be."""
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_spec(path)
    error = caught.value
    assert error.exit_code == 2
    assert error.message.startswith(str(path)), "the message begins with the place"
    assert "\n" not in error.message, "one message is one line"
    assert "pydantic" not in error.message.lower()
    return error


def line_of(error: UsageError, tmp_path: Path) -> int:
    rest = error.message.removeprefix(f"{tmp_path / 'run.yaml'}:")
    return int(rest.partition(":")[0])


def test_minimal(load: Load, tmp_path: Path) -> None:
    spec = load(PIPELINE)
    assert spec.pipeline == "project.training.pipeline"
    assert spec.stack is None
    assert spec.target == "modal"
    assert spec.source_root == tmp_path
    assert spec.run_configuration == {}


def test_everything_of_ours(load: Load, tmp_path: Path) -> None:
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


def test_run_keys_are_those_of_the_installed_zenml() -> None:
    from zenml.config.pipeline_run_configuration import PipelineRunConfiguration

    assert set(PipelineRunConfiguration.model_fields) == RUN_KEYS


def test_step_keys_are_those_of_the_installed_zenml() -> None:
    from zenml.config.step_configurations import StepConfigurationUpdate

    assert set(StepConfigurationUpdate.model_fields) == STEP_KEYS


@pytest.mark.parametrize("key", sorted(RUN_KEYS - {"schedule", "build", "steps", "settings"}))
def test_run_keys_go_to_zenml_as_they_are(load: Load, key: str) -> None:
    assert load(f"{PIPELINE}{key}: {{a: [1, two]}}\n").run_configuration == {key: {"a": [1, "two"]}}


@pytest.mark.parametrize("key", sorted(STEP_KEYS - {"settings"}))
def test_step_keys_go_to_zenml_as_they_are(load: Load, key: str) -> None:
    configuration = load(f"{PIPELINE}steps:\n  train:\n    {key}: {{a: 1}}\n").run_configuration
    assert configuration == {"steps": {"train": {key: {"a": 1}}}}


def test_empty_sections_say_nothing(load: Load) -> None:
    spec = load(PIPELINE + "settings:\nsteps:\n  train:\nparameters:\ntags:\n")
    assert spec.run_configuration == {"steps": {"train": {}}}


def test_environment_placeholders_are_left_to_zenml(load: Load) -> None:
    spec = load(PIPELINE + "parameters: {path: '${DATA_PATH}'}\nrun_name: run-${USER}-{date}\n")
    assert spec.run_configuration == {
        "parameters": {"path": "${DATA_PATH}"},
        "run_name": "run-${USER}-{date}",
    }


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
    assert spec.step_places["train"][Origin.SPEC_STEP].settings == {"gpu": "A100", "timeout": 60}


def test_error_of_a_spec_points_at_the_key(load: Load, tmp_path: Path) -> None:
    spec = load(PIPELINE + "parameters:\n  rate: 1\n")
    error = spec.error(("parameters", "rate"), "too low.", "Raise it.")
    assert error.message == f"{tmp_path / 'run.yaml'}:3: too low."
    assert error.hint == "Raise it."


# Unknown keys: the place, the name, the parent, and the nearest valid key.


@pytest.mark.parametrize(
    ("text", "line", "key", "parent", "close"),
    [
        ("pipline: a.b\n", 1, "pipline", None, "pipeline"),
        (PIPELINE + "enable_cach: true\n", 2, "enable_cach", None, "enable_cache"),
        (PIPELINE + "sources_root: x\n", 2, "sources_root", None, "source_root"),
        (PIPELINE + "steps:\n  a:\n    setings: {}\n", 4, "setings", "steps.a", "settings"),
        (PIPELINE + "settings:\n  orchstrator: {}\n", 3, "orchstrator", "settings", "orchestrator"),
        (PIPELINE + "settings:\n  resource: {}\n", 3, "resource", "settings", "resources"),
        (
            PIPELINE + "settings:\n  orchestrator:\n    gppu: T4\n",
            4,
            "gppu",
            "settings.orchestrator",
            "gpu",
        ),
        (
            PIPELINE + "settings:\n  orchestrator.modalrun:\n    regoin: us\n",
            4,
            "regoin",
            "settings.orchestrator.modalrun",
            "region",
        ),
        (
            PIPELINE + "steps:\n  a:\n    settings:\n      orchestrator:\n        timeot: 1\n",
            6,
            "timeot",
            "steps.a.settings.orchestrator",
            "timeout",
        ),
        pytest.param(
            PIPELINE + "modal:\n  enviroment: x\n",
            3,
            "enviroment",
            "modal",
            "environment",
        ),
    ],
)
def test_unknown_key(  # noqa: PLR0917
    tmp_path: Path, text: str, line: int, key: str, parent: str | None, close: str
) -> None:
    error = mistake(tmp_path, text)
    assert line_of(error, tmp_path) == line
    under = f" under '{parent}'" if parent else ""
    assert error.message.endswith(f": unknown key '{key}'{under}.")
    assert error.hint == f"Did you mean '{close}'?"


def test_unknown_key_like_no_other_lists_what_is_valid(tmp_path: Path) -> None:
    error = mistake(tmp_path, PIPELINE + "zzzzzz: 1\n")
    assert str(error.hint).startswith("Valid keys: ")
    assert "pipeline" in str(error.hint)


@pytest.mark.parametrize("key", ["5", "2024-01-02", "1.50", "true", "~"])
def test_key_that_is_not_a_string(tmp_path: Path, key: str) -> None:
    error = mistake(tmp_path, f"{PIPELINE}{key}: 1\n")
    assert "unknown key" in error.message
    assert line_of(error, tmp_path) == 2


def test_numbers_as_step_names_are_taken_as_names(tmp_path: Path) -> None:
    error = mistake(tmp_path, PIPELINE + "steps:\n  a: {}\n  7:\n    setings: {}\n")
    assert "'steps.7'" in error.message
    assert line_of(error, tmp_path) == 5


# Wrong types.


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("settings: []\n", 2, "'settings' has to be a mapping (key: value), not a list"),
        ("settings: 3\n", 2, "'settings' has to be a mapping (key: value), not 3"),
        ("steps: [a]\n", 2, "'steps' has to be a mapping (key: value), not a list"),
        ("steps: all\n", 2, "'steps' has to be a mapping (key: value), not 'all'"),
        ("steps:\n  a: fast\n", 3, "'steps.a' has to be a mapping (key: value), not 'fast'"),
        (
            "steps:\n  a:\n    settings: [1]\n",
            4,
            "'steps.a.settings' has to be a mapping (key: value), not a list",
        ),
        (
            "settings:\n  orchestrator: T4\n",
            3,
            "'settings.orchestrator' has to be a mapping (key: value), not 'T4'",
        ),
        ("target: cloud\n", 2, "'target': input should be 'modal' or 'local' (it is 'cloud')"),
        ("target: true\n", 2, "'target': input should be 'modal' or 'local' (it is True)"),
        ("stack: 5\n", 2, "'stack': input should be a valid string (it is 5)"),
        ("stack: ''\n", 2, "'stack': string should have at least 1 character"),
        ("source_root: 5\n", 2, "'source_root': input should be a valid string (it is 5)"),
        ("modal: [a]\n", 2, "'modal'"),
        ("modal:\n  environment: 5\n", 3, "'modal.environment'"),
    ],
)
def test_wrong_type(tmp_path: Path, text: str, line: int, words: str) -> None:
    error = mistake(tmp_path, PIPELINE + text)
    assert line_of(error, tmp_path) == line
    assert words in error.message


ORCHESTRATOR = [
    ("timeout: '60'", "input should be a valid integer (it is '60')"),
    ("timeout: 0", "greater than or equal to 1 (it is 0)"),
    ("timeout: -5", "greater than or equal to 1 (it is -5)"),
    ("timeout: 86401", "less than or equal to 86400 (it is 86401)"),
    ("timeout: true", "input should be a valid integer (it is True)"),
    ("timeout: 60.5", "input should be a valid integer (it is 60.5)"),
    ("timeout: [60]", "input should be a valid integer (it is a list)"),
    ("gpu: 5", "input should be a valid string (it is 5)"),
    ("gpu: ''", "at least 1 character"),
    ("gpu: {type: T4}", "input should be a valid string (it is a mapping)"),
    ("gpu: [1, 2]", "input should be a valid string"),
    ("gpu: []", "an empty list; leave the setting out instead"),
    ("region: 5", "input should be a valid string (it is 5)"),
    ("region: []", "an empty list; leave the setting out instead"),
    ("cloud: [aws]", "input should be a valid string (it is a list)"),
    ("synchronous: 'yes'", "input should be a valid boolean (it is 'yes')"),
    ("synchronous: 1", "input should be a valid boolean (it is 1)"),
    ("mode: perstep", "input should be 'pipeline' or 'per_step' (it is 'perstep')"),
    ("mode: 1", "input should be 'pipeline' or 'per_step' (it is 1)"),
    ("modal_environment: 5", "input should be a valid string (it is 5)"),
    ("modal_environment: 'a b'", "letters, digits, dashes, underscores and dots"),
    ("app_name: 5", "input should be a valid string (it is 5)"),
    ("app_name: my app", "letters, digits, dashes, underscores and dots"),
    (f"app_name: {'a' * 65}", "1 to 64 letters"),
    ("workspace: ''", "at least 1 character"),
    ("max_parallelism: 0", "greater than or equal to 1 (it is 0)"),
    ("max_parallelism: true", "input should be a valid integer (it is True)"),
    ("secrets: wandb", "input should be a valid list (it is 'wandb')"),
    ("secrets: [1]", "input should be a valid string"),
    ("volumes: [a]", "input should be a valid dictionary (it is a list)"),
    ("volumes: {data: 1}", "input should be a valid string (it is 1)"),
    (
        "image: slim",
        "write either {source: registry} or {name: <a Modal image>}.",
    ),
    ("infrastructure_retries: -1", "greater than or equal to 0 (it is -1)"),
    ("prewarm: on", "input should be 'off', 'cpu' or 'all' (it is True)"),
    ("prewarm: gpu", "input should be 'off', 'cpu' or 'all' (it is 'gpu')"),
    ("creation_rate: 0", "greater than 0 (it is 0)"),
    ("cpu_limit: 0", "greater than 0 (it is 0)"),
    ("cpu_limit: much", "input should be a valid number"),
    ("memory_limit: 32", "input should be a valid string (it is 32)"),
]


def test_the_table_has_every_setting() -> None:
    assert {text.partition(":")[0] for text, _ in ORCHESTRATOR} == set(SettingFields.model_fields)


@pytest.mark.parametrize("key", ["orchestrator", "orchestrator.modalrun"])
@pytest.mark.parametrize(("text", "words"), ORCHESTRATOR)
def test_wrong_orchestrator_setting(tmp_path: Path, key: str, text: str, words: str) -> None:
    error = mistake(tmp_path, f"{PIPELINE}settings:\n  {key}:\n    {text}\n")
    assert line_of(error, tmp_path) == 4
    assert f"'settings.{key}.{text.partition(':')[0]}" in error.message
    assert words in error.message


def test_wrong_orchestrator_setting_of_a_step(tmp_path: Path) -> None:
    text = "steps:\n  a:\n    settings:\n      orchestrator:\n        timeout: soon\n"
    error = mistake(tmp_path, PIPELINE + text)
    assert line_of(error, tmp_path) == 6
    assert "'steps.a.settings.orchestrator.timeout'" in error.message


def test_wrong_item_of_a_list_is_named_itself(tmp_path: Path) -> None:
    error = mistake(
        tmp_path, PIPELINE + "settings:\n  orchestrator:\n    gpu:\n      - T4\n      - 5\n"
    )
    assert line_of(error, tmp_path) == 6
    assert "(it is 5)" in error.message


@pytest.mark.parametrize("key", ["app_name", "modal_environment"])
def test_line_feed_at_the_end_of_a_name(tmp_path: Path, key: str) -> None:
    mistake(tmp_path, f'{PIPELINE}settings:\n  orchestrator:\n    {key}: "name\\n"\n')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image: {from: x}\n", "unknown key 'from' under 'image'"),
        ("deployment: some-id\n", "both 'pipeline' and 'deployment'"),
        ("schedule: {cron_expression: '* * * * *'}\n", "Scheduled pipelines"),
        ("build: some-id\n", "image builds are not used"),
    ],
)
def test_top_level_key_that_is_refused(tmp_path: Path, text: str, words: str) -> None:
    error = mistake(tmp_path, PIPELINE + text)
    assert line_of(error, tmp_path) == 2
    assert words in error.message


@pytest.mark.parametrize(
    "text",
    [
        "mode: per_step",
        "synchronous: false",
        "max_parallelism: 2",
        "infrastructure_retries: 0",
        "prewarm: off",
        "prewarm: cpu",
        "creation_rate: 0.5",
        "secrets: [wandb]",
        "volumes: {data: /data}",
        "workspace: team",
        "cpu_limit: 4",
        "memory_limit: 4GB",
        "gpu: T4",
        "timeout: 86400",
    ],
)
def test_setting_that_is_supported(load: Load, text: str) -> None:
    spec = load(f"{PIPELINE}settings:\n  orchestrator:\n    {text}\n")
    name, _, _ = text.partition(":")
    assert set(spec.places[Origin.SPEC_PIPELINE].settings) == {name}


# Settings keys.


def test_orchestrator_settings_twice(tmp_path: Path) -> None:
    text = "settings:\n  orchestrator: {gpu: T4}\n  orchestrator.modalrun: {gpu: L4}\n"
    error = mistake(tmp_path, PIPELINE + text)
    assert line_of(error, tmp_path) == 4
    assert "twice" in error.message
    assert "'orchestrator.modalrun'" in error.message


def test_settings_for_another_orchestrator(tmp_path: Path) -> None:
    error = mistake(tmp_path, PIPELINE + "settings:\n  orchestrator.kubernetes: {}\n")
    assert line_of(error, tmp_path) == 3
    assert "'kubernetes'" in error.message


@pytest.mark.parametrize("key", ["docker", "step_operator", "experiment_tracker.mlflow"])
def test_settings_of_zenml_are_left_to_zenml(load: Load, key: str) -> None:
    spec = load(f"{PIPELINE}settings:\n  {key}: {{anything: 1}}\n")
    assert spec.run_configuration["settings"] == {key: {"anything": 1}}


def test_misspelt_component_with_a_flavor(tmp_path: Path) -> None:
    error = mistake(tmp_path, PIPELINE + "settings:\n  orchestrater.modalrun: {gpu: T4}\n")
    assert line_of(error, tmp_path) == 3


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
    assert "'pipeline': input should be a valid string (it is 5)" in error.message


# The Modal environment.


def test_environment_becomes_an_orchestrator_setting(load: Load) -> None:
    spec = load(PIPELINE + "modal: {environment: staging}\nsettings:\n  docker: {a: 1}\n")
    assert spec.run_configuration["settings"] == {"docker": {"a": 1}}
    assert spec.places[Origin.SPEC_PIPELINE].settings == {"modal_environment": "staging"}


def test_environment_joins_the_settings_that_are_there(load: Load) -> None:
    text = "modal: {environment: staging}\nsettings:\n  orchestrator.modalrun: {gpu: T4}\n"
    settings = load(PIPELINE + text).places[Origin.SPEC_PIPELINE].settings
    assert settings == {"gpu": "T4", "modal_environment": "staging"}


def test_environment_twice_alike(load: Load) -> None:
    text = "modal: {environment: e}\nsettings:\n  orchestrator: {modal_environment: e}\n"
    settings = load(PIPELINE + text).places[Origin.SPEC_PIPELINE].settings
    assert settings == {"modal_environment": "e"}


def test_environment_twice_differently(tmp_path: Path) -> None:
    text = "modal:\n  environment: one\nsettings:\n  orchestrator:\n    modal_environment: two\n"
    error = mistake(tmp_path, PIPELINE + text)
    assert line_of(error, tmp_path) == 3
    assert "'one'" in error.message
    assert "'two'" in error.message
    assert "settings.orchestrator.modal_environment" in error.message


@pytest.mark.parametrize("name", ["a b", "a/b", "ümlaut", "a" * 65, ""])
def test_environment_with_characters_that_modal_refuses(tmp_path: Path, name: str) -> None:
    error = mistake(tmp_path, f"{PIPELINE}modal:\n  environment: '{name}'\n")
    assert line_of(error, tmp_path) == 3
    assert "'modal.environment'" in error.message


def test_environment_message_is_in_words(tmp_path: Path) -> None:
    error = mistake(tmp_path, f"{PIPELINE}modal:\n  environment: 'a b'\n")
    assert "^[" not in error.message


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


def test_a_wrong_spec_imports_neither_sdk(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("pipline: a.b\n", encoding="utf-8")
    code = (
        "import json, sys\n"
        "from modalrun.cli import run\n"
        "code = run(['submit', sys.argv[1]])\n"
        "print(json.dumps([code, sorted({m.partition('.')[0] for m in sys.modules})]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    exit_code, modules = json.loads(done.stdout)
    assert exit_code == 2
    assert not {"zenml", "modal"} & set(modules)
    assert done.stderr == (f"Error: {path}:1: unknown key 'pipline'.\n  Did you mean 'pipeline'?\n")
