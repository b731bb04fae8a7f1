"""Parameters of a run spec against the types that the code declares."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict
from zenml import pipeline, step

from modalrun import errors
from modalrun.spec.overrides import param_option
from modalrun.spec.run_spec import RunSpec, load_spec
from modalrun.spec.validation import Mistakes
from modalrun.zenml_api.compiling import compile
from modalrun.zenml_api.compiling.parameter_checks import (
    check_pipeline_parameters,
    check_step_parameters,
)

Check = Callable[..., tuple[dict[str, Any], Mistakes]]


class Model(BaseModel):
    name: str
    rate: float = 0.0


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = ""
    models: list[Model] = []


@dataclass
class Data:
    name: str


class Keys(TypedDict):
    name: str
    names: list[str]


@step
def use(  # noqa: PLR0917
    text: str = "",
    maybe: str | None = None,
    texts: list[str] | None = None,
    names: dict[str, str] | None = None,
    rates: dict[str, float] | None = None,
    by_number: dict[int, list[str]] | None = None,
    rate: float = 0.0,
    count: int = 0,
    flag: bool = False,
    kind: Literal["on", "off"] = "on",
    anything: Any = None,
    model: Model | None = None,
    strict: Strict | None = None,
    data: Data | None = None,
    keys: Keys | None = None,
    by_key: dict[str, Model] | None = None,
) -> None: ...


@pipeline
def of_steps(  # noqa: PLR0917
    text: str = "",
    maybe: str | None = None,
    texts: list[str] | None = None,
    names: dict[str, str] | None = None,
    rates: dict[str, float] | None = None,
    by_number: dict[int, list[str]] | None = None,
    rate: float = 0.0,
    count: int = 0,
    flag: bool = False,
    kind: Literal["on", "off"] = "on",
    anything: Any = None,
    model: Model | None = None,
    strict: Strict | None = None,
    data: Data | None = None,
    keys: Keys | None = None,
    by_key: dict[str, Model] | None = None,
) -> None:
    use()


@pytest.fixture(params=["pipeline", "step", "command line"])
def check(request: pytest.FixtureRequest, tmp_path: Path) -> Check:
    """Check one parameter of the pipeline or of a step; return it and the mistakes."""

    def of(name: str, text: str) -> tuple[Any, Mistakes]:
        path, mistakes = tmp_path / "run.yaml", Mistakes()
        spec: RunSpec
        if request.param == "command line":
            path.write_text("pipeline: a.b\n")
            spec = load_spec(path, overrides=[param_option(f"{name}={text}")])
        else:
            step_key = "steps: {'us*': " if request.param == "step" else ""
            end = "}" if step_key else ""
            path.write_text(f"pipeline: a.b\n{step_key}{{parameters: {{{name}: {text}}}}}{end}\n")
            if not step_key:
                path.write_text(f"pipeline: a.b\nparameters: {{{name}: {text}}}\n")
            spec = load_spec(path)
        made = of_steps.copy()
        if request.param == "step":
            made.prepare()
            spec = check_step_parameters(made, spec, mistakes)
            owner = spec.run_configuration["steps"]["use"]
        else:
            spec = check_pipeline_parameters(made, spec, mistakes)
            owner = spec.run_configuration
        return owner.get("parameters", {}).get(name), mistakes

    return of


@pytest.mark.parametrize("text", ["007", "1.10", "NO", "2026-01-31", "1e-3", "null", "on", "1:30"])
@pytest.mark.parametrize("name", ["text", "maybe", "texts", "names"])
def test_a_text_stays_what_is_written(check: Check, name: str, text: str) -> None:
    written = {"texts": f"[{text}]", "names": f"{{a: {text}}}"}.get(name, text)
    value, mistakes = check(name, written)
    expected: Any = None if (name, text) == ("maybe", "null") else text
    assert value == {"texts": [text], "names": {"a": text}}.get(name, expected)
    assert mistakes.found == mistakes.notes == []


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rate", "1e-3", 0.001),
        ("rate", "2", 2),
        ("count", "1_000", 1000),
        ("flag", "NO", False),
        ("kind", "off", "off"),
        ("anything", "007", 7),
    ],
)
def test_another_type_has_its_value(check: Check, name: str, text: str, value: Any) -> None:
    found, mistakes = check(name, text)
    assert (found, type(found)) == (value, type(value))
    assert mistakes.found == mistakes.notes == []


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rates", "{007: 1, 1.50: 2, 1e-3: 3, NO: 4}", {"007": 1, "1.50": 2, "1e-3": 3, "NO": 4}),
        ("names", "{1: 010}", {"1": "010"}),
        ("by_number", "{1: [NO, 010]}", {1: ["NO", "010"]}),
        ("anything", "{007: 1}", {7: 1}),
    ],
)
def test_a_key_that_is_declared_as_text_is_what_is_written(
    check: Check, name: str, text: str, value: Any
) -> None:
    found, mistakes = check(name, text)
    assert found == value
    assert mistakes.found == mistakes.notes == []


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rates", "{007: 1, '007': 2}", "rates.7': the key must be a string, not 7 (put quotes"),
        ("rates", "{1: many}", "rates.1' must be a number, not 'many'."),
        ("by_number", "{a: []}", "by_number.a': the key must be a whole number, not 'a'."),
    ],
)
def test_a_wrong_key_is_not_taken_for_its_value(
    check: Check, name: str, text: str, said: str
) -> None:
    _, mistakes = check(name, text)
    (error,) = mistakes.found
    assert said in error.message


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("count", "010", "010, which YAML reads as 8"),
        ("anything", "NO", "NO, which YAML reads as false (put quotes around text)"),
        ("anything", "1:30", "1:30, which YAML reads as 90"),
    ],
)
def test_what_yaml_reads_as_something_else_is_said(
    check: Check, name: str, text: str, said: str
) -> None:
    _, mistakes = check(name, text)
    assert mistakes.found == []
    (note,) = mistakes.notes
    assert said in note
    assert f".{name}' is " in note


def test_a_wrong_value_is_shown_as_it_is_written(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "_VARIABLES", {})
    monkeypatch.setenv("SECRET", "pw7")
    for text, shown in (("'${SECRET}'", "'${SECRET}'"), ("NO", "NO, which YAML reads")):
        _, mistakes = check("count", text)
        if text == "NO":
            # Pydantic takes it for 0.
            assert mistakes.found == []
            continue
        (error,) = mistakes.found
        assert f"must be a whole number, not {shown}" in error.message
        assert "pw7" not in f"{error.message}{error.__cause__}"


def test_a_comment_is_part_of_what_was_typed(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("pipeline: a.b\n")
    options = [param_option("text=v1 #2"), param_option("maybe=a: b"), param_option("count=3 #x")]
    spec = load_spec(path, overrides=options)
    spec = check_pipeline_parameters(of_steps.copy(), spec, Mistakes())
    assert spec.run_configuration["parameters"] == {"text": "v1 #2", "maybe": "a: b", "count": 3}


@pytest.mark.parametrize(("given", "said"), [("count: many", ".count'"), ("coun: 1", "'coun'")])
def test_a_wrong_parameter_hides_no_wrong_step(tmp_path: Path, given: str, said: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        f"pipeline: a.b\nparameters: {{{given}}}\n"
        "steps:\n  uze: {enable_cache: false}\n  use:\n    parameters: {rat: 1}\n"
    )
    with pytest.raises(errors.UsageError) as caught:
        compile._checked_configuration(of_steps.copy(), load_spec(path))
    told = caught.value.message
    assert [word in told for word in (said, "no step 'uze'", "'rat'")] == [True] * 3


@pytest.mark.parametrize(("rate", "differs"), [("0.5", True), ("0.1", False)])
def test_a_parameter_that_the_code_passes_to_the_step_is_named_with_its_line(
    tmp_path: Path, rate: str, differs: bool
) -> None:
    @pipeline
    def passing() -> None:
        use(rate=0.1)

    passing.prepare()
    path = tmp_path / "run.yaml"
    path.write_text(f"pipeline: a.b\nsteps:\n  use:\n    parameters: {{rate: {rate}}}\n")
    mistakes = Mistakes()

    check_step_parameters(passing, load_spec(path), mistakes)

    text = "run.yaml:4: the pipeline's code passes another 'rate' to the step 'use'."
    assert [str(one).endswith(text) for one in mistakes.found] == [True] * differs


@pytest.mark.parametrize(
    ("name", "text", "at", "hint"),
    [
        ("model", "{nam: x}", "model.name", "Did you mean 'name' by 'nam'?"),
        ("model", "{other: x}", "model.name", None),
        ("model", "{name: x, rate: fast, rat: 1}", "model.rate", None),
        ("strict", "{nam: x}", "strict.nam", "Did you mean 'name'?"),
        ("strict", "{models: [{nam: x}]}", "strict.models[0].name", "... 'name' by 'nam'?"),
        ("data", "{nam: x}", "data.name", "Did you mean 'name' by 'nam'?"),
        ("keys", "{nam: x, names: []}", "keys.name", "Did you mean 'name' by 'nam'?"),
        ("keys", "{names: []}", "keys.name", None),
        ("by_key", "{a: {nam: x}}", "by_key.a.name", "Did you mean 'name' by 'nam'?"),
    ],
)
def test_a_misspelt_field(check: Check, name: str, text: str, at: str, hint: str | None) -> None:
    _, mistakes = check(name, text)
    error = next(one for one in mistakes.found if f"{at}'" in one.message)
    assert error.hint == (hint and hint.replace("...", "Did you mean"))


def test_how_a_list_is_written(check: Check, request: pytest.FixtureRequest) -> None:
    _, mistakes = check("texts", "'a,b'")
    (error,) = mistakes.found
    assert "must be a list, not 'a,b'." in error.problem
    on_command_line = "command line" in request.node.name
    assert error.hint == f"As in {'--param ' * on_command_line}" + (
        "'texts=[a, b]'." if on_command_line else "'texts: [a, b]'."
    )
