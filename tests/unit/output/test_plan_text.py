"""A plan as text: all of it at any width."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modalrun.output.plan_text import Explain, lines, print_plan
from modalrun.plan import pricing
from modalrun.plan.deployment import CompiledStep, Deployment
from modalrun.plan.planner import make_plan
from modalrun.plan.pricing import LIST_PRICES
from modalrun.plan.stack import StackDescription
from modalrun.run.run_plan import PlannedStep
from modalrun.spec.explanation import variables
from modalrun.spec.overrides import param_option
from modalrun.spec.precedence import Origin, SettingsLayer, Value
from modalrun.spec.run_spec import RunSpec, load_spec
from modalrun.submit.prepare import PricedPlan
from modalrun.submit.source.selection import select
from modalrun.submit.source.tree import SourceSelection

LONG = "a_step_with_a_name_that_is_longer_than_anybody_needs"


def step(name: str, upstream: tuple[str, ...] = (), **resources: Any) -> CompiledStep:
    return CompiledStep(
        PlannedStep(name, upstream), {Origin.CODE_STEP: SettingsLayer({}, resources)}
    )


NO_SPEC = RunSpec.of_snapshot("local", Path(), own_code=True)


def priced(settings: Mapping[str, Any], spec: RunSpec | None = None) -> PricedPlan:
    deployment = Deployment(
        pipeline="training",
        steps=(step("load", cpu_count=2, memory="4GiB"), step(LONG, ("load",), gpu_count=2)),
        layers={Origin.CODE_PIPELINE: SettingsLayer(settings)},
        docker={"requirements": ["numpy"]},
    )
    plan = make_plan(
        deployment,
        target="local",
        source_root=Path("/nowhere"),
        python_version="3.11",
        engine_packages=("zenml",),
    )
    cost = pricing.cost(plan, LIST_PRICES)
    stack, source = StackDescription("an-id", "our-stack"), SourceSelection(Path())
    return PricedPlan(plan, cost, stack, source, spec or NO_SPEC)


PER_STEP = {
    "mode": "per_step",
    "gpu": ["H100", "A100-80GB"],
    "region": ["us-east", "eu-west"],
    "volumes": {"datasets": "/data", "models": "/models"},
    "cpu_limit": 8.0,
    "timeout": 600,
}


@pytest.mark.parametrize("explain", ["all", "set", None])
@pytest.mark.parametrize("settings", [{"gpu": "A100"}, PER_STEP], ids=["pipeline", "per_step"])
def test_a_terminal_of_any_width_shows_everything(
    settings: Mapping[str, Any], explain: Explain | None
) -> None:
    found = priced(settings)
    wide = lines(found, explain=explain)
    assert [line for line in wide if line != line.rstrip()] == []
    assert "  stack        our-stack" in wide
    for width in (60, 80, 200):
        text = lines(found, explain=explain, width=width)
        assert [line for line in text if len(line) > width or line != line.rstrip()] == []
        # No word of it is lost or broken.
        assert {w.strip(",:") for line in wide for w in line.split()} - {
            w.strip(",:") for line in text for w in line.split()
        } <= {"sandbox", "setting", "value", "from", "$/hour", "ceiling"}
    assert lines(found, explain=explain, width=400) == wide


def test_the_image_makes_room_for_the_table() -> None:
    text = lines(priced({"timeout": 600, "gpu": "T4"}), explain=None, width=80)
    assert text[6].split() == [
        *("sandbox", "gpu", "cpu", "memory", "region", "timeout", "$/hour", "ceiling"),
    ]
    assert text[9] == "  image  debian slim, Python 3.11 + 3 packages"


def test_values_are_shown_as_yaml_has_them() -> None:
    settings = {"timeout": 5400, "synchronous": True, "gpu": "T4"}
    text = "\n".join(lines(priced(settings), explain="all"))
    assert re.search(r"timeout +1h30m", text)
    assert re.search(r"synchronous +true", text)
    assert "()" not in text


def test_explain_shows_what_is_no_default_unless_all_is_asked_for() -> None:
    found = priced({"timeout": 5400, "gpu": "T4"})
    some = "\n".join(lines(found, explain="set"))
    assert re.search(r"timeout +1h30m", some) and "--all" in some
    assert not re.search(r"^.*synchronous.*default", some, re.M)
    assert re.search(r"^.*synchronous.*default", "\n".join(lines(found, explain="all")), re.M)


def test_no_secrets_and_no_volumes_are_the_default() -> None:
    found = priced({"mode": "per_step", "gpu": "T4", "secrets": [], "volumes": {}})
    assert not re.search("secrets|volumes", "\n".join(lines(found, explain="set")))
    assert re.search(r"load +secrets +\[\]", "\n".join(lines(found, explain="all")))


def test_what_never_goes_is_not_said_to_be_taken_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "training.py").touch()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "training.pyc").touch()

    def shown() -> str:
        print_plan(
            priced({"gpu": "T4"}), select(SourceSelection(tmp_path)), explain=None, files=True
        )
        return capsys.readouterr().out

    assert shown().endswith("__pycache__ never goes\n")
    (tmp_path / ".env").write_text("KEY=value")
    told = "'source_include: [PATH]' in the run spec takes ignored and credential files along."
    assert shown().endswith(f"__pycache__ never goes\n\n{told}\n")


def test_parameters_and_variables_are_explained_without_their_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "pipeline: a.b\ntimeout: ${MINUTES}m\n"
        "parameters: {rate: 1e-3, answer: NO, api_key: abc, user: '${NAME}',"
        " api_token: '${TOKEN:-hunter2}'}\n"
        "steps: {train: {parameters: {depth: 3}}}\n"
    )
    monkeypatch.setenv("MINUTES", "9")
    monkeypatch.setenv("NAME", "nobody-else")
    spec = load_spec(path, overrides=[param_option("epochs=5")])
    found = priced({"gpu": "A100", "timeout": 540}, spec)
    timeout = Value(540, Origin.SPEC_PIPELINE, "run spec, pipeline")
    origins = {"": {**found.plan.sandbox_origins[""], "timeout": timeout}}
    found = replace(found, plan=replace(found.plan, sandbox_origins=origins))
    text = "\n".join(lines(found, explain="set"))
    for row in (
        r"run +timeout +9m +run spec, pipeline: \$\{MINUTES\}m",
        r"run +parameter rate +1e-3 +run spec",
        r"run +parameter answer +NO +run spec",
        r"run +parameter api_key +\*\*\* +run spec",
        r"run +parameter api_token +\*\*\* +run spec",
        r"run +parameter user +\$\{NAME\} +run spec",
        r"run +parameter epochs +5 +command line",
        r"train +parameter depth +3 +run spec",
    ):
        assert re.search(row, text), text
    assert "nobody-else" not in text and "hunter2" not in text


def test_a_variable_is_explained_under_a_key_for_several_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "pipeline: a.b\nsteps:\n"
        "  load*: {settings: {orchestrator: {gpu: '${CARD}', timeout: '${MINUTES}m'}}}\n"
        "  load: {settings: {orchestrator: {timeout: 8m}}}\n"
    )
    monkeypatch.setenv("MINUTES", "9")
    monkeypatch.setenv("CARD", "T4")
    of_step = Origin.SPEC_STEP.label
    told = {s: variables(load_spec(path), "load", s, of_step) for s in ("gpu", "timeout", "cloud")}
    assert told == {"gpu": "${CARD}", "timeout": None, "cloud": None}
