"""The line of `plan` about what the last runs have used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modalrun.errors import ConnectionLostError
from modalrun.observe.used_before import used_before
from modalrun.output.plan_text import lines
from modalrun.plan.deployment import CompiledStep, Deployment
from modalrun.plan.model import Plan
from modalrun.plan.planner import make_plan
from modalrun.run.run_plan import PlannedStep
from modalrun.spec.precedence import Origin, SettingsLayer
from tests.unit.fake_zenml import FakeZenML
from tests.unit.fakes import Effects
from tests.unit.observe.test_advice import RUN, attempt, used
from tests.unit.output.test_plan_text import PER_STEP, priced


def planned(memory: str = "32GiB", steps: int = 1, *, dynamic: bool = False) -> Plan:
    resources = SettingsLayer({}, {"cpu_count": 2, "memory": memory})
    names = ["train", *(f"step_{number}" for number in range(1, steps))]
    deployment = Deployment(
        "using",
        tuple(CompiledStep(PlannedStep(name), {Origin.CODE_STEP: resources}) for name in names),
        {Origin.CODE_PIPELINE: SettingsLayer({"mode": "per_step"})},
        dynamic=dynamic,
    )
    return make_plan(
        deployment,
        target="local",
        source_root=Path("/nowhere"),
        python_version="3.11",
        engine_packages=("zenml",),
    )


@pytest.fixture
def zenml() -> FakeZenML:
    zenml = FakeZenML(Effects())
    zenml.run = replace(RUN, id="a")
    zenml.others = [replace(RUN, id="b")]
    zenml.steps = (attempt("train", used(9, 1, 0.1, 1946), memory=32768),)
    return zenml


def test_what_the_last_runs_have_used(zenml: FakeZenML) -> None:
    line = "train used at most 1.9 of 32 GiB in the last 2 runs: modalrun advise using"
    assert used_before(planned(), zenml=zenml) == line
    shown = lines(replace(priced(PER_STEP), usage=line), explain=None)
    assert f"  usage        {line}" in shown
    zenml.others = []
    zenml.steps = (attempt("train", used(9, 1, 0.1, 100), memory=256),)
    cores = "train used at most 0.1 of 2 cores in the last run: modalrun advise using"
    assert used_before(planned("256MiB"), zenml=zenml) == cores


def test_a_step_that_never_completed_may_need_more(zenml: FakeZenML) -> None:
    (completed,) = zenml.steps
    failed = replace(completed, status="failed")
    zenml.steps = (failed,)
    assert used_before(planned(), zenml=zenml) is None
    zenml.steps = (failed, completed)
    assert " of 32 GiB in the last 2 runs" in (used_before(planned(), zenml=zenml) or "")


def test_nothing_to_say(zenml: FakeZenML, monkeypatch: pytest.MonkeyPatch) -> None:
    # It asks for something else by now, or there is too much to read.
    zenml.steps = (attempt("train", used(9, 9, 1.9, 1946), memory=32768),)
    assert used_before(planned("3GiB"), zenml=zenml) is None
    assert used_before(planned(steps=21), zenml=zenml) is None
    assert used_before(planned(dynamic=True), zenml=zenml) is None

    def gone(**_: object) -> None:
        raise ConnectionLostError("ZenML's server is gone.")

    monkeypatch.setattr(zenml, "newest_runs", gone)
    assert used_before(planned(), zenml=zenml) is None
