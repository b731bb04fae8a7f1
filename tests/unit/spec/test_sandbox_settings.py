"""Settings of sandboxes in a run spec, and the key `modal`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from modalrun.spec.fields import SettingFields
from modalrun.spec.precedence import Origin
from modalrun.spec.run_spec import RunSpec
from modalrun.util.timeparse import DURATION_FORMS
from unit.specs import PIPELINE, line_of, mistake

Load = Callable[[str], RunSpec]


ORCHESTRATOR = [
    ("timeout: '0'", "must be 1 or more, not '0'"),
    ("timeout: 25h", "must be 24h or less, not '25h'"),
    ("timeout: 0.5s", f"must be {DURATION_FORMS}, not '0.5s'"),
    ("timeout: 1h 30", f"must be {DURATION_FORMS}, not '1h 30'"),
    ("timeout: inf", f"must be {DURATION_FORMS}, not 'inf'"),
    ("timeout: 0", "must be 1 or more, not 0"),
    ("timeout: -5", "must be 1 or more, not -5"),
    ("timeout: 86401", "must be 86400 or less, not 86401"),
    ("timeout: true", f"must be {DURATION_FORMS}, not true"),
    ("timeout: 60.5", f"must be {DURATION_FORMS}, not 60.5"),
    ("timeout: [60]", f"must be {DURATION_FORMS}, not a list"),
    ("gpu: 5", "must be a string or a list, not 5"),
    ("gpu: ''", "must be a string that is not empty, not ''"),
    ("gpu: {type: T4}", "must be a string or a list, not a mapping"),
    ("gpu: [1, 2]", "gpu[0]' must be a string, not 1"),
    ("gpu: []", "an empty list; leave the setting out instead"),
    ("gpu_wait: 0", "must be 1 or more, not 0"),
    ("wait_for_capacity: 8d", "must be 168h or less"),
    ("region: 5", "must be a string or a list, not 5"),
    ("region: []", "an empty list; leave the setting out instead"),
    ("cloud: [aws]", "must be a string, not a list"),
    ("synchronous: 'yes'", "must be true or false, not 'yes'"),
    ("synchronous: 1", "must be true or false, not 1"),
    ("mode: perstep", "must be 'pipeline' or 'per_step', not 'perstep'"),
    ("mode: 1", "must be 'pipeline' or 'per_step', not 1"),
    ("modal_environment: 5", "must be a string, not 5"),
    ("modal_environment: 'a b'", "letters, digits, dashes, underscores and dots"),
    ("app_name: 5", "must be a string, not 5"),
    ("app_name: my app", "letters, digits, dashes, underscores and dots"),
    (f"app_name: {'a' * 65}", "1 to 64 letters"),
    ("workspace: ''", "must be a string that is not empty, not ''"),
    ("max_parallelism: 0", "must be 1 or more, not 0"),
    ("max_parallelism: true", "must be a whole number, not true"),
    ("creation_rate: .nan", "must be a finite number, not nan"),
    ("cpu_limit: .nan", "must be a finite number, not nan"),
    ("secrets: wandb", "must be a list, not 'wandb'"),
    ("secrets: [1]", "secrets[0]' must be a string."),
    ("volumes: [a]", "must be a mapping (key: value), not a list"),
    ("volumes: {data: /root/}", "the volume 'data' can't be mounted at '/root/'; Modal"),
    ("volumes: {data: /tmp}", "at '/tmp'; Modal mounts none there"),
    ("volumes: {data: /tmp/./}", "at '/tmp/./'; Modal mounts none there"),
    ("volumes: {data: /./}", "at an absolute path below '/'"),
    ("volumes: {a: /data//a, b: /data/a}", "two volumes are mounted at the same path"),
    ("volumes: {a: //data, b: /data/./}", "two volumes are mounted at the same path"),
    ("volumes: {data: 1}", "volumes.data' must be a string, not 1"),
    (
        "image: slim",
        "write either {source: registry} or {name: <a Modal image>}.",
    ),
    ("source_include: data.csv", "must be a list, not 'data.csv'"),
    ("infrastructure_retries: -1", "must be 0 or more, not -1"),
    ("keep_warm: -1", "must be 0 or more, not -1"),
    ("keep_warm: true", "must be a whole number of seconds, or a duration such as"),
    ("creation_rate: 0", "must be above 0, not 0"),
    ("cpu_limit: 0", "must be above 0, not 0"),
    ("cpu_limit: much", "must be a number, not 'much'"),
    ("memory_limit: 32", "'32' is not an amount of memory"),
]


def test_the_table_has_every_setting() -> None:
    assert {text.partition(":")[0] for text, _ in ORCHESTRATOR} == set(SettingFields.model_fields)


@pytest.mark.parametrize("key", ["orchestrator", "orchestrator.modalrun"])
@pytest.mark.parametrize(("text", "message"), ORCHESTRATOR)
def test_wrong_orchestrator_setting(tmp_path: Path, key: str, text: str, message: str) -> None:
    error = mistake(tmp_path, f"{PIPELINE}settings:\n  {key}:\n    {text}\n")
    assert line_of(error, tmp_path) == 4
    assert f"'settings.{key}.{text.partition(':')[0]}" in error.message
    assert message in error.message


def test_wrong_orchestrator_setting_of_a_step(tmp_path: Path) -> None:
    text = "steps:\n  a:\n    settings:\n      orchestrator:\n        timeout: soon\n"
    error = mistake(tmp_path, PIPELINE + text)
    assert line_of(error, tmp_path) == 6
    assert "'steps.a.settings.orchestrator.timeout'" in error.message


def test_wrong_item_of_a_list_is_named(tmp_path: Path) -> None:
    error = mistake(
        tmp_path, PIPELINE + "settings:\n  orchestrator:\n    gpu:\n      - T4\n      - 5\n"
    )
    assert line_of(error, tmp_path) == 6
    assert "'settings.orchestrator.gpu[1]' must be a string, not 5." in error.message


@pytest.mark.parametrize("key", ["app_name", "modal_environment"])
def test_line_feed_at_the_end_of_a_name(tmp_path: Path, key: str) -> None:
    mistake(tmp_path, f'{PIPELINE}settings:\n  orchestrator:\n    {key}: "name\\n"\n')


@pytest.mark.parametrize(
    "text",
    [
        "mode: per_step",
        "synchronous: false",
        "max_parallelism: 2",
        "infrastructure_retries: 0",
        "keep_warm: 0",
        "keep_warm: 30",
        "keep_warm: 2h",
        "creation_rate: 0.5",
        "gpu_wait: 5m",
        "wait_for_capacity: 2h",
        "secrets: [wandb]",
        "volumes: {data: /data}",
        "workspace: team",
        "cpu_limit: 4",
        "memory_limit: 4GB",
        "gpu: T4",
        "timeout: 86400",
        "timeout: 24h",
    ],
)
def test_setting_that_is_supported(load: Load, text: str) -> None:
    spec = load(f"{PIPELINE}settings:\n  orchestrator:\n    {text}\n")
    name, _, _ = text.partition(":")
    assert set(spec.layers[Origin.SPEC_PIPELINE].settings) == {name}


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
    name = "user" if key == "docker" else "anything"
    spec = load(f"{PIPELINE}settings:\n  {key}: {{{name}: x}}\n")
    assert spec.run_configuration["settings"] == {key: {name: "x"}}


def test_misspelt_component_with_a_flavor(tmp_path: Path) -> None:
    error = mistake(tmp_path, PIPELINE + "settings:\n  orchestrater.modalrun: {gpu: T4}\n")
    assert line_of(error, tmp_path) == 3


# The Modal environment.


def test_environment_becomes_an_orchestrator_setting(load: Load) -> None:
    spec = load(PIPELINE + "modal: {environment: staging}\nsettings:\n  docker: {user: a}\n")
    assert spec.run_configuration["settings"] == {"docker": {"user": "a"}}
    assert spec.layers[Origin.SPEC_PIPELINE].settings == {"modal_environment": "staging"}


def test_environment_is_added_to_existing_settings(load: Load) -> None:
    text = "modal: {environment: staging}\nsettings:\n  orchestrator.modalrun: {gpu: T4}\n"
    settings = load(PIPELINE + text).layers[Origin.SPEC_PIPELINE].settings
    assert settings == {"gpu": "T4", "modal_environment": "staging"}


def test_environment_twice_alike(load: Load) -> None:
    text = "modal: {environment: e}\nsettings:\n  orchestrator: {modal_environment: e}\n"
    settings = load(PIPELINE + text).layers[Origin.SPEC_PIPELINE].settings
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


def test_environment_message_shows_no_pattern(tmp_path: Path) -> None:
    error = mistake(tmp_path, f"{PIPELINE}modal:\n  environment: 'a b'\n")
    assert "^[" not in error.message


@pytest.mark.parametrize("path", ["/data//a", "//data/a", "/data/a/", "/data/./a"])
def test_mount_paths_become_canonical(path: str) -> None:
    assert SettingFields(volumes={"x": path}).volumes == {"x": "/data/a"}
