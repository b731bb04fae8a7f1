"""Text that YAML 1.1 reads as something else: environment variables, keys, messages."""

from collections.abc import Callable
from pathlib import Path

import pytest

from modalrun.spec.overrides import param_option, set_option
from modalrun.spec.precedence import Origin
from modalrun.spec.run_spec import RunSpec, load_spec
from modalrun.spec.yaml_nodes import Scalar
from modalrun.spec.yaml_source import read_yaml
from unit.specs import PIPELINE, mistake

Load = Callable[[str], RunSpec]

WORDS = "{A: NO, B: 1.10, C: 007, D: 2026-01-31, E: on, F: 'no', G: 1e3, H: true, ON: 1}"
TEXTS = {
    **{"A": "NO", "B": "1.10", "C": "007", "D": "2026-01-31", "E": "on", "F": "no"},
    **{"G": "1e3", "H": "true", "ON": "1"},
}


@pytest.mark.parametrize(
    "text",
    [
        f"environment: {WORDS}\n",
        f"steps: {{a: {{environment: {WORDS}}}}}\n",
        f"settings: {{docker: {{environment: {WORDS}}}}}\n",
        f"x-words: &words {WORDS}\nsteps: {{a: {{environment: *words}}}}\n",
    ],
)
def test_the_values_of_environment_variables_are_text(load: Load, text: str) -> None:
    found = load(PIPELINE + text).run_configuration
    owner = found["steps"]["a"] if "steps" in found else found
    owner = owner["settings"]["docker"] if "settings" in owner else owner
    assert owner["environment"] == TEXTS


def test_environment_variables_of_the_command_line_are_text(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(PIPELINE)
    options = [set_option("environment.A=007"), set_option(f"steps.a.environment={WORDS}")]
    spec = load_spec(path, overrides=options)
    assert spec.run_configuration["environment"] == {"A": "007"}
    assert spec.run_configuration["steps"]["a"]["environment"] == TEXTS


@pytest.mark.parametrize(
    "typed", ['{"lr": 0.1}', "[1, 2]", "Authorization: Bearer x", "", "#fff", "|", "null", " x"]
)
@pytest.mark.parametrize(
    "place",
    ["environment", "settings.docker.environment", "steps.a.settings.docker.runtime_environment"],
)
def test_an_environment_variable_of_the_command_line_is_what_is_typed(
    typed: str, place: str
) -> None:
    assert set_option(f"{place}.A={typed}").value == typed


def test_quotes_around_an_environment_variable_of_the_command_line() -> None:
    assert set_option("environment.A='007'").value == "007"


def test_an_empty_environment_variable_is_empty_text(load: Load) -> None:
    text = "environment: {A: , B: ~}\nsettings: {docker: {environment: {A: }}}\n"
    found = load(PIPELINE + text).run_configuration
    assert found["environment"] == {"A": "", "B": "~"}
    assert found["settings"]["docker"]["environment"] == {"A": ""}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("environment: {A: {b: 1}}", "environment.A"),
        ("environment: {A: [1]}", "environment.A"),
        ("settings: {docker: {environment: {A: [1]}}}", "settings.docker.environment.A"),
    ],
)
def test_an_environment_variable_is_no_mapping_and_no_list(
    tmp_path: Path, text: str, name: str
) -> None:
    error = mistake(tmp_path, f"{PIPELINE}{text}\n")
    assert error.message.endswith(f":2: '{name}' must be a string.")


def test_a_parameter_called_environment_is_not_one(load: Load) -> None:
    spec = load(PIPELINE + "parameters: {environment: {A: 1}}\n")
    assert spec.run_configuration["parameters"] == {"environment": {"A": 1}}


@pytest.mark.parametrize("text", ["1e-3", "1E5", "+2e+2", ".5e1", "1.e0"])
def test_a_number_with_an_exponent(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"a: {text}\n")
    assert read_yaml(path).data == {"a": float(text)}


@pytest.mark.parametrize("key", ["ON", "no", "~", "2026-01-31"])
def test_a_key_is_its_text(tmp_path: Path, key: str) -> None:
    assert f"unknown key '{key}'" in mistake(tmp_path, f"{PIPELINE}{key}: 1\n").message


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("run_name: NO", "must be a string, not NO, which YAML reads as false (put quotes"),
        ("stack: 2026-01-31", "not 2026-01-31, which YAML reads as a date (put quotes"),
        ("tags: [1:30]", "1:30, which YAML reads as 90"),
        ("stack: 5", "must be a string, not 5."),
    ],
)
def test_a_message_says_what_yaml_reads(tmp_path: Path, text: str, shown: str) -> None:
    assert shown in mistake(tmp_path, f"{PIPELINE}{text}\n").message


@pytest.mark.parametrize(
    ("text", "value", "surprises"),
    [
        ("NO", False, True),
        ("True", True, False),
        ("010", 8, True),
        ("-010", -8, True),
        ("007", 7, False),
        ("1_000", 1000, False),
        ("2024_", 2024, True),
        ("1__2", 12, True),
        ("0_", 0, True),
        ("0x1F", 31, False),
        ("1:30", 90, True),
        ("1:30.5", 90.5, True),
        ("1.10", 1.1, False),
    ],
)
def test_surprises(text: str, value: object, surprises: bool) -> None:
    assert Scalar(text, value).is_surprising is surprises


@pytest.mark.parametrize(
    ("typed", "value", "text"),
    [
        ("007", 7, "007"),
        ("v1 #2", "v1 #2", None),
        (" x", " x", None),
        ("'007'", "007", None),
        ("a: b", {"a": "b"}, "a: b"),
        ("[1, 2]", [1, 2], "[1, 2]"),
        ("*.csv", "*.csv", None),
        ("@x", "@x", None),
        ("{a", "{a", None),
        ("2026-02-31", "2026-02-31", None),
        ("!!int x", "!!int x", None),
        *((one, one, None) for one in ("|", ">", "|-", ">-", "#ml", "---", "&a")),
        ("|\n  a\n  b", "a\nb", None),
        ("~", None, "~"),
        (" NULL ", None, " NULL "),
        ("", None, ""),
        ("null", None, "null"),
        ("3 # three", 3, "3 # three"),
    ],
)
def test_a_parameter_of_the_command_line(typed: str, value: object, text: str | None) -> None:
    found = param_option(f"p={typed}")
    assert found.value == value
    scalar = found.reading.scalars.get(())
    assert (scalar.text if scalar else None) == text


def test_an_own_key_is_not_taken_for_a_merged_one(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("x: &x {tag: 007}\na: {tag: 'x', <<: *x}\nb: {<<: *x, tag: 010}\nc: *x\n")
    scalars = read_yaml(path).scalars
    found = {place: scalars[place, "tag"].text for place in "bcx" if (place, "tag") in scalars}
    assert found == {"x": "007", "b": "010", "c": "007"}
    assert ("a", "tag") not in scalars


def test_an_anchor_of_an_environment_variable_is_a_number_elsewhere(load: Load) -> None:
    text = "x-n: &n 4\nx-m: &m {A: 007}\nenvironment: {N: *n, <<: *m}\ncpu: *n\nparameters: *m\n"
    spec = load(PIPELINE + text)
    assert spec.run_configuration["environment"] == {"N": "4", "A": "007"}
    assert spec.run_configuration["parameters"] == {"A": 7}
    assert spec.layers[Origin.SPEC_PIPELINE].resources == {"cpu_count": 4}


def test_merged_environment_variables_are_text(load: Load) -> None:
    text = "x-a: &a {A: NO, B: 1}\nx-b: &b {B: 007}\nenvironment: {<<: [*a, *b]}\n"
    assert load(PIPELINE + text).run_configuration["environment"] == {"A": "NO", "B": "1"}
