"""Which steps a key under `steps:` is for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from modalrun.errors import UsageError
from modalrun.spec.overrides import set_option
from modalrun.spec.precedence import Origin
from modalrun.spec.run_spec import RunSpec, load_spec
from modalrun.spec.step_keys import for_steps
from unit.specs import PIPELINE

Load = Callable[[str], RunSpec]

STEPS = {
    "load": "load",
    "train": "train",
    "train_2": "train",
    "third": "train",
    "train_all": "train_all",
}


def steps(*lines: str) -> str:
    return PIPELINE + "steps:\n" + "".join(f"  {line}\n" for line in lines)


def test_a_pattern_is_for_every_step_that_begins_so(load: Load) -> None:
    spec = for_steps(
        load(steps('"train*": {enable_cache: false, parameters: {x: 007}}')),
        STEPS,
        "p",
        dynamic=False,
    )
    covered = {"train", "train_2", "train_all"}
    assert spec.run_configuration["steps"].keys() == covered
    assert all(one["enable_cache"] is False for one in spec.run_configuration["steps"].values())
    scalar = spec.scalar(("steps", "train_2", "parameters", "x"))
    assert (scalar and scalar.text) == "007"
    error = spec.error(("steps", "train_2", "parameters", "x"), "wrong.")
    assert error.message.endswith("run.yaml:3: wrong.")


def test_the_own_name_and_the_longer_pattern_are_stronger(load: Load) -> None:
    text = steps(
        "train_2: {parameters: {x: 3}, settings: {orchestrator: {gpu: T4}}}",
        "'*': {parameters: {x: 1, y: 1}, settings: {orchestrator: {volumes: {a: /a}, cloud: aws}}}",
        "train*: {parameters: {x: 2}, settings: {orchestrator: {volumes: {b: /b}, timeout: 60}}}",
    )
    spec = for_steps(load(text), STEPS, "p", dynamic=False)
    found = {name: one["parameters"] for name, one in spec.run_configuration["steps"].items()}
    assert found["load"] == {"x": 1, "y": 1}
    assert found["train"] == {"x": 2, "y": 1}
    assert found["train_2"] == {"x": 3, "y": 1}
    layer = spec.step_layers["train_2"][Origin.SPEC_STEP]
    assert layer.settings == {
        **{"gpu": "T4", "cloud": "aws", "timeout": 60},
        "volumes": {"a": "/a", "b": "/b"},
    }
    assert spec.source.where(("steps", "train_2", "parameters", "x")).endswith(":3")
    assert spec.source.where(("steps", "train_2", "parameters", "y")).endswith(":4")


def test_the_command_line_is_above_a_step_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(steps("train: {settings: {orchestrator: {gpu: T4}}}"))
    option = set_option("steps.train*.settings.orchestrator.gpu=L4")
    spec = for_steps(load_spec(path, overrides=[option]), STEPS, "p", dynamic=False)
    layers = spec.step_layers["train"]
    assert layers[Origin.COMMAND_LINE_STEP].settings == {"gpu": "L4"}
    assert layers[Origin.SPEC_STEP].settings == {"gpu": "T4"}
    assert spec.error(("steps", "train_2", "settings"), "x.").message.startswith("--set steps.tra")


def test_a_key_for_one_of_several_calls_is_noted(load: Load) -> None:
    spec = for_steps(
        load(steps("load: {}", "train: {enable_cache: false}")), STEPS, "p", dynamic=False
    )
    (note,) = spec.notes
    assert ":4: 'train' is one of the calls of that step; the others (train_2, third)" in note
    assert "'train*' is for all" in note


@pytest.mark.parametrize(
    "lines",
    [
        ("load: {}", "train_all: {}"),
        ("train: {}", "train_2: {}", "third: {}"),
        ("train*: {}", "third: {}"),
        ("'*': {}", "train: {}"),
    ],
)
def test_nothing_is_noted_where_all_are_named(load: Load, lines: tuple[str, ...]) -> None:
    assert for_steps(load(steps(*lines)), STEPS, "p", dynamic=False).notes == ()


@pytest.mark.parametrize(
    ("key", "hint"),
    [("trian", "Did you mean 'train'?"), ("zz*", "Its steps: load, "), ("x", "Its steps: load, ")],
)
def test_a_key_for_no_step(load: Load, key: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        for_steps(load(steps(f"{key}: {{}}")), STEPS, "p", dynamic=False)
    assert f"run.yaml:3: the pipeline 'p' has no step '{key}'." in caught.value.message
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(("steps_", "listed"), [({}, "."), ({"work_2": "work_2"}, ": work_2.")])
def test_a_step_that_a_dynamic_pipeline_does_not_list(
    load: Load, steps_: dict[str, str], listed: str
) -> None:
    with pytest.raises(UsageError) as caught:
        for_steps(load(steps("work: {}")), steps_, "p", dynamic=True)
    assert "the dynamic pipeline 'p' has no step 'work' in its 'depends_on'." in str(caught.value)
    assert (caught.value.hint or "").startswith(
        f"A run spec can name only the steps listed there{listed} List the step in"
    )


def test_a_pipeline_without_steps(load: Load) -> None:
    with pytest.raises(UsageError) as caught:
        for_steps(load(steps("work: {}")), {}, "p", dynamic=False)
    assert caught.value.hint == "It has no steps."
