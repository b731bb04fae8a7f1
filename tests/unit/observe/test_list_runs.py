"""The list of runs: its filters and what a run has cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest

from modalrun.errors import NotFoundError, UsageError
from modalrun.observe.cost import estimate
from modalrun.observe.list_runs import check_pipeline, check_states, with_costs
from modalrun.plan.pricing import LIST_PRICES, PriceTable
from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.records import RunRecord, StepRecord
from tests.unit.fake_zenml import FakeZenML
from tests.unit.fakes import Effects

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
TABLE = PriceTable(
    as_of="2026-01-01",
    source="test",
    cpu=Decimal("0.001"),
    memory=Decimal("0.0001"),
    gpus={"T4": Decimal("0.01")},
    broad_region=Decimal(2),
)
FACTS = RunMetadata("modal", "pipeline", "app", "ap-1", "sb-1", 600, cpu=2, memory=1024)
RUN = RunRecord("id", "name", "training", "completed", NOON, NOON, NOON + HOUR, metadata=FACTS)
PER_SECOND = Decimal("0.0021")


def cost(run: RunRecord, *attempts: StepRecord) -> Decimal | None:
    return estimate(run, attempts, NOON + 2 * HOUR, TABLE)


def test_a_pipeline_that_has_not_run_is_told() -> None:
    zenml = FakeZenML(Effects())
    check_pipeline("training", zenml=zenml)
    with pytest.raises(NotFoundError, match="No pipeline 'trainnig' has run") as caught:
        check_pipeline("trainnig", zenml=zenml)
    assert caught.value.hint == "Did you mean 'training'?"


def test_a_sandbox_costs_its_time_by_what_it_asked_for() -> None:
    assert cost(RUN) == 3600 * PER_SECOND
    unlimited = replace(RUN, end=None, metadata=replace(FACTS, timeout=0))
    assert cost(unlimited) == 7200 * PER_SECOND
    with_gpu = replace(RUN, metadata=replace(FACTS, gpu="T4:2", regions="us"))
    assert cost(with_gpu) == 3600 * (PER_SECOND + Decimal("0.02")) * 2


def test_a_lost_run_costs_no_more_than_its_timeout() -> None:
    lost = replace(RUN, status="running", end=None)
    assert cost(lost) == 600 * PER_SECOND
    resumed = replace(FACTS, created=(NOON + HOUR).timestamp())
    assert cost(replace(lost, metadata=resumed)) == 600 * PER_SECOND
    step = StepRecord("train", "running", 1, NOON, metadata=StepMetadata("sb", cpu=2, memory=1024))
    assert cost(lost, step) == 2 * 600 * PER_SECOND


def test_a_paused_run_costs_its_time_until_its_last_step_has_ended() -> None:
    paused = replace(RUN, status="paused", end=None)
    ended = StepRecord("ask", "completed", 1, NOON, NOON + HOUR / 60)
    zenml = FakeZenML(Effects())
    zenml.steps = (ended,)
    (listed,) = with_costs([paused], zenml=zenml)
    minute = estimate(replace(RUN, end=ended.end), [], NOON, LIST_PRICES)
    assert listed.cost == minute and cost(paused, ended) == 60 * PER_SECOND


def test_a_run_costs_what_its_child_pipelines_do_and_they_are_where_it_is() -> None:
    parent = replace(RUN, metadata=replace(FACTS, mode="per_step"))
    child = replace(RUN, id="child", metadata=None, parent="id", root="id")
    zenml = FakeZenML(Effects())
    zenml.run = parent
    metadata = StepMetadata("sb", cpu=2, memory=1024)
    zenml.steps = (StepRecord("train", "completed", 1, NOON, NOON + HOUR, metadata=metadata),)
    (alone,) = with_costs([parent], zenml=zenml)
    zenml.children = {"inner": child}
    below, above = with_costs([child, parent], zenml=zenml)
    assert (below.place, below.root, below.cost) == (parent.metadata, parent, 0)
    assert alone.cost and above.cost == alone.cost * 3 / 2

    # The parent itself is not among those that are listed.
    assert with_costs([child], zenml=zenml) == [below]
    zenml.run = replace(parent, metadata=None)
    (foreign,) = with_costs([child], zenml=zenml)
    assert (foreign.place, foreign.cost) == (None, None)


def test_a_local_run_costs_nothing_and_an_unknown_gpu_nobody_knows_what() -> None:
    assert cost(replace(RUN, metadata=replace(FACTS, target="local", gpu="NEW"))) == 0
    assert cost(replace(RUN, metadata=replace(FACTS, gpu="NEW"))) is None
    assert cost(replace(RUN, metadata=None)) is None


def test_every_attempt_of_a_step_adds_to_the_driver() -> None:
    attempt = StepRecord(
        "train", "failed", 1, NOON, NOON + HOUR / 60, metadata=StepMetadata("sb", "T4", 2)
    )
    default_memory = cost(replace(RUN, metadata=replace(FACTS, memory=None), end=NOON))
    assert default_memory == 0
    one = cost(RUN, attempt)
    two = cost(RUN, attempt, replace(attempt, attempt=2), StepRecord("load", "cached"))
    assert one is not None and two is not None
    assert two - one == one - 3600 * PER_SECOND > 60 * Decimal("0.012")


def test_states_are_zenmls_words() -> None:
    assert check_states(["Failed", " running "]) == ["failed", "running"]
    with pytest.raises(UsageError, match="broken"):
        check_states(["broken"])
