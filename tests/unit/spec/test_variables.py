"""`${VAR}` in the values of a run spec, and what is shown of it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modalrun import errors
from modalrun.errors import UsageError
from modalrun.spec.overrides import param_option, set_option
from modalrun.spec.precedence import Origin
from modalrun.spec.run_spec import RunSpec, load_spec, target_of_spec
from modalrun.spec.yaml_nodes import MAX_LENGTH
from modalrun.spec.yaml_source import read_yaml
from unit.specs import PIPELINE, line_of, mistake, mistakes

Load = Callable[[str], RunSpec]


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(errors, "_VARIABLES", {})
    for name, value in {
        "HOURS": "2h",
        "COUNT": "3",
        "FLAG": "false",
        "REGION": "us-east",
        "PASSWORD": "hunter2 # x: y",
        "NOTHING": "",
        "DOLLAR": "${HOURS}",
        "WORD": "007",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ABSENT", raising=False)
    yield


def test_variables_in_every_place(load: Load) -> None:
    spec = load(
        PIPELINE
        + """\
timeout: ${HOURS}
max_parallelism: ${COUNT}
modal: {environment: "${ABSENT:-dev}"}
enable_cache: ${FLAG}
run_name: run-${REGION}-{date}
tags: [a, "${REGION}", "x-${COUNT}-${ABSENT:-}"]
environment:
  PASSWORD: ${PASSWORD}
parameters:
  nested: {deep: ["${PASSWORD}"]}
steps:
  train:
    settings:
      resources: {cpu_count: "${COUNT}"}
""".replace('"${COUNT}"', "!!float ${COUNT}").replace(
            "{cpu_count: !!float ${COUNT}}", "\n        cpu_count: ${COUNT}"
        )
    )
    assert spec.layers[Origin.SPEC_PIPELINE].settings == {
        "timeout": 7200,
        "max_parallelism": 3,
        "modal_environment": "dev",
    }
    assert spec.step_layers["train"][Origin.SPEC_STEP].resources == {"cpu_count": 3}
    assert spec.run_configuration == {
        "enable_cache": False,
        "run_name": "run-us-east-{date}",
        "tags": ["a", "us-east", "x-3-"],
        "environment": {"PASSWORD": "hunter2 # x: y"},
        "parameters": {"nested": {"deep": ["hunter2 # x: y"]}},
        "steps": {"train": {}},
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${COUNT}", 3),
        ("'${COUNT}'", "3"),
        ('"${COUNT}"', "3"),
        ("${FLAG}", False),
        ("${NOTHING}", ""),
        ("${NOTHING:-4}", 4),
        ("'${ABSENT:-a: b}'", "a: b"),
        ("$HOURS", "$HOURS"),
        ("$${HOURS}", "${HOURS}"),
        ("a$$b", "a$$b"),
        ("${DOLLAR}", "${HOURS}"),
        ("$5 ${COUNT}", "$5 3"),
    ],
)
def test_values(load: Load, text: str, value: object) -> None:
    found = load(f"{PIPELINE}parameters:\n  x: {text}\n").run_configuration["parameters"]["x"]
    assert (found, type(found)) == (value, type(value))


def test_what_zenml_would_replace_again_is_known(load: Load) -> None:
    spec = load(PIPELINE + "parameters: {a: '$${HOURS}', b: '${DOLLAR}-x', c: '${HOURS}'}\n")
    assert spec.source.literals == {"${HOURS}", "${HOURS}-x"}


def test_variables_of_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(PIPELINE)
    options = [param_option("p=${PASSWORD}"), set_option("timeout=${HOURS}")]
    spec = load_spec(path, overrides=options)
    assert spec.run_configuration["parameters"] == {"p": "hunter2 # x: y"}
    assert spec.layers[Origin.COMMAND_LINE].settings == {"timeout": 7200}
    with pytest.raises(UsageError, match=r"^--param p: 'parameters\.p': the environment variable"):
        load_spec(path, overrides=[param_option("p=${ABSENT}")])


def test_variables_that_are_not_set(tmp_path: Path) -> None:
    text = "target: local\ntimeout: ${ABSENT}\nsteps:\n  a:\n    parameters: {x: ['${ABSENT}']}\n"
    error = mistakes(tmp_path, PIPELINE + text)
    first, second = error.message.split("\n")
    assert ":3: 'timeout': the environment variable ABSENT is not set. Set it, or write" in first
    assert "${ABSENT:-default}" in first
    assert ":6: 'steps.a.parameters.x[0]': the environment variable ABSENT is not set" in second
    assert target_of_spec(tmp_path / "run.yaml") == "local"


def test_a_variable_that_is_not_set_hides_no_other_mistake(tmp_path: Path) -> None:
    text = "cpu: ${ABSENT}\ntarget: moon\nsettings:\n  orchestrator: {regoin: eu}\n"
    text += "  resources: ${ABSENT}\n"
    told = mistakes(tmp_path, PIPELINE + text).message.split("\n")
    words = (
        "'cpu': the environment variable ABSENT",
        "'target'",
        "'regoin'",
        "'settings.resources': the",
    )
    assert len(told) == len(words) and all(a in b for a, b in zip(words, told, strict=True)), told


@pytest.mark.parametrize("text", ["${A-b}", "${A", "${}", "${A:?no}", "${a.b}", "${A:-${B}}"])
def test_what_is_no_variable(tmp_path: Path, text: str) -> None:
    error = mistake(tmp_path, f"{PIPELINE}parameters:\n  x: '{text}'\n")
    assert line_of(error, tmp_path) == 3
    assert "'parameters.x': a '${' begins no variable" in error.message
    assert "'$${'" in error.message


def test_variables_in_braces_need_quotes(tmp_path: Path) -> None:
    error = mistake(tmp_path, PIPELINE + "parameters: {x: ${COUNT}}\n")
    assert "quotes around '${...}'" in str(error.hint)


def test_keys_for_anchors_may_name_variables_that_are_not_used(load: Load) -> None:
    text = "x-a: &a {region: '${ABSENT}'}\nx-b: &b {region: '${REGION}'}\n"
    spec = load(PIPELINE + text + "settings: {orchestrator: *b}\n")
    assert spec.layers[Origin.SPEC_PIPELINE].settings == {"region": "us-east"}


def test_an_overridden_key_of_a_merged_mapping_may_name_a_variable_that_is_not_set(
    load: Load,
) -> None:
    text = "x-a: &a {region: '${ABSENT}'}\nsettings: {orchestrator: {<<: *a, region: eu}}\n"
    assert load(PIPELINE + text).layers[Origin.SPEC_PIPELINE].settings == {"region": "eu"}


def test_a_variable_of_a_merged_mapping_that_is_not_set(tmp_path: Path) -> None:
    text = "x-a: &a\n  X: ${ABSENT}\nenvironment: {<<: [*a]}\n"
    assert ":3: 'environment.X': the environment" in mistake(tmp_path, PIPELINE + text).message


# Values are not shown.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("timeout: ${PASSWORD}", "'timeout' must be a whole number of seconds"),
        ("cpu: ${PASSWORD}", "'cpu' must be a number, not '${PASSWORD}'."),
        ("memory: ${PASSWORD}", "'${PASSWORD}' is not an amount of memory"),
        ("gpu: 'T4:${PASSWORD}'", "'T4:${PASSWORD}' is not a GPU type"),
        ("gpu: ${PASSWORD}\nsettings: {orchestrator: {gpu: T4}}", "'${PASSWORD}' here and 'T4'"),
        ("modal: {volumes: {data: '${PASSWORD}'}}", "not at '${PASSWORD}'"),
        ("mode: ${COUNT}", "must be 'pipeline' or 'per_step', not '${COUNT}'."),
        ("deployment: ${PASSWORD}\nstack: x", "both 'pipeline' and 'deployment'"),
        ("steps: '${PASSWORD}'", "not '${PASSWORD}'"),
    ],
)
def test_a_message_shows_the_variable(tmp_path: Path, text: str, shown: str) -> None:
    error = mistakes(tmp_path, f"{PIPELINE}{text}\n")
    assert shown in error.message
    assert "hunter2" not in f"{error.message}{error.hint}"


def test_words_that_are_everywhere_are_not_replaced(load: Load) -> None:
    load(PIPELINE + "parameters: {a: '${COUNT}', b: '${FLAG}', c: '${REGION}'}\n")
    text = "3 false us-east xus-eastx (us-east)"
    assert errors.without_credentials(text) == "3 ${FLAG} ${REGION} xus-eastx (${REGION})"


@pytest.mark.parametrize("word", ["modal", "modalrun"])
def test_words_that_commands_have_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setenv("WORD", word)
    mistakes(tmp_path, f"{PIPELINE}target: ${{WORD}}\ntimeout: x\n")
    assert errors.without_credentials(f"Run '{word} x'.") == f"Run '{word} x'."


def test_a_long_value_is_masked_inside_of_a_word(load: Load) -> None:
    load(PIPELINE + "parameters: {a: '${PASSWORD}'}\n")
    text = "xhunter2 # x: yy"
    assert errors.without_credentials(text) == "x${PASSWORD}y"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("max_parallelism: ${ABSENT:-0}", "must be 1 or more, not 0 (from '${ABSENT:-0}')."),
        ("max_parallelism: ${NOTHING:-0}", "must be 1 or more, not 0 (from '${NOTHING:-0}')."),
        # Quotes make it text.
        ("max_parallelism: '${ABSENT:-3}'", "a whole number, not '3' (from '${ABSENT:-3}')."),
        ("mode: ${ABSENT:-NO}", "'per_step', not false (from '${ABSENT:-NO}')."),
        ("mode: a-${ABSENT:-b}", "'per_step', not 'a-b' (from 'a-${ABSENT:-b}')."),
        ("mode: $${ABSENT}", "'per_step', not '${ABSENT}' (from '$${ABSENT}')."),
        ("cpu: ${PASSWORD:-4}", "'cpu' must be a number, not '${PASSWORD}'."),
        ("cpu: ${PASSWORD:-4}-${ABSENT:-x}", "'cpu' must be a number, not '${PASSWORD}-x'."),
        ("mode: ${COUNT:-pipeline}", "or 'per_step', not '${COUNT}'."),
    ],
)
def test_a_message_shows_the_default_of_a_variable_only_where_it_counts(
    tmp_path: Path, text: str, shown: str
) -> None:
    error = mistake(tmp_path, f"{PIPELINE}{text}\n")
    assert shown in error.message
    assert "hunter2" not in error.message


def test_a_default_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(PIPELINE)
    with pytest.raises(UsageError, match=r"1 or more, not 0 \(from '\$\{ABSENT:-0\}'\)"):
        load_spec(path, overrides=[set_option("max_parallelism=${ABSENT:-0}")])
    with pytest.raises(UsageError, match=r"1 or more, not '-\$\{WORD\}'"):
        load_spec(path, overrides=[set_option("max_parallelism=-${WORD:-1}")])


# What is hostile.


def test_the_values_of_variables_have_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARGE", "x" * 100_000)
    path = tmp_path / "run.yaml"
    path.write_text(f"a: '{'${LARGE}' * 20}'\n")
    with pytest.raises(UsageError, match=f"more than {MAX_LENGTH:,} characters"):
        read_yaml(path)


@pytest.mark.parametrize("text", ["${", "${a:-", "$${", "${a", "$"])
def test_many_begins_of_variables_take_no_time(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"a: '{text * (MAX_LENGTH // len(text) - 10)}'\n")
    read_yaml(path)
