"""The price of a plan."""

import dataclasses
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.errors import CostLimitError
from modalrun.plan.pricing import LIST_PRICES, ceiling_note, check_limit, cost, dollars
from modalrun.run.run_plan import PlannedStep, RunPlan, RunSettings, Target
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.util.modal_catalog import BROAD_REGIONS, GPUS_PER_SANDBOX, NARROW_REGIONS


def sandbox(timeout: int = 3600, regions: tuple[str, ...] = (), **asked: Any) -> SandboxSpec:
    return SandboxSpec(("x",), "im-1", Resources(**asked), timeout, regions=regions)


def plan(
    run: SandboxSpec, *steps: PlannedStep, at_once: int | None = None, lost: int = 0
) -> RunPlan:
    settings = RunSettings(
        app_name="app",
        mode="per_step" if steps else "pipeline",
        max_parallelism=at_once,
        infrastructure_retries=lost,
    )
    return RunPlan("local", "p", settings, run, steps)


def test_an_hour_of_a_sandbox() -> None:
    found = cost(plan(sandbox(gpus=("A100:2",), cpu=4.0, memory=2048)), LIST_PRICES)
    per_second = 2 * Decimal("0.000583") + 4 * Decimal("0.00003942") + 2 * Decimal("0.00000667")
    assert found.run.per_hour == per_second * 3600
    assert found.ceiling == per_second * 3600


@pytest.mark.parametrize(
    ("hours", "target", "noted"), [(8, "modal", True), (6, "modal", False), (8, "local", False)]
)
def test_a_high_ceiling_has_a_note(hours: int, target: Target, noted: bool) -> None:
    # An hour costs $1.26.
    made = dataclasses.replace(
        plan(sandbox(hours * 3600, cpu=1.0, memory=1024, gpus=("A10",))), target=target
    )
    note = ceiling_note(made, cost(made))
    assert ("can cost up to $10.1" in note if note else False) is noted


def test_the_default_request_costs_too() -> None:
    found = cost(plan(sandbox()), LIST_PRICES)
    expected = Decimal("0.5") * Decimal("0.00003942") + Decimal("0.00000667")
    assert found.ceiling == expected * 3600


def test_a_ceiling_holds_for_the_dearest_gpu() -> None:
    dear = cost(plan(sandbox(gpus=("H100",))), LIST_PRICES).ceiling
    assert cost(plan(sandbox(gpus=("T4", "H100"))), LIST_PRICES).ceiling == dear


def test_limits_are_what_it_can_cost() -> None:
    found = cost(plan(sandbox(cpu=1.0, cpu_limit=8.0, memory=128, memory_limit=1024)), LIST_PRICES)
    assert found.has_limits
    assert found.run.per_hour == (8 * LIST_PRICES.cpu + LIST_PRICES.memory) * 3600
    assert not cost(plan(sandbox(cpu=1.0, cpu_limit=8.0)), LIST_PRICES).has_limits


def test_regions() -> None:
    base = cost(plan(sandbox()), LIST_PRICES).ceiling
    assert base is not None
    assert cost(plan(sandbox(regions=("eu",))), LIST_PRICES).ceiling == base * Decimal("1.5")
    assert cost(plan(sandbox(regions=("us-east",))), LIST_PRICES).ceiling == base * Decimal("1.75")
    both = cost(plan(sandbox(regions=("us-east", "eu"))), LIST_PRICES).ceiling
    assert both == base * Decimal("1.5")
    for regions, factor in ((BROAD_REGIONS, "1.5"), ((*NARROW_REGIONS, "us-east-1"), "1.75")):
        for region in regions:
            found = cost(plan(sandbox(regions=(region,))), LIST_PRICES).ceiling
            assert found == base * Decimal(factor), region


@pytest.mark.parametrize("gpu", ["A10G", "a10", "A100-40GB", "H100!", "any"])
def test_names_of_gpus(gpu: str) -> None:
    assert cost(plan(sandbox(gpus=(gpu,) if gpu else ())), LIST_PRICES).unpriced == ()


def test_every_known_gpu_has_a_price() -> None:
    assert set(GPUS_PER_SANDBOX) == set(LIST_PRICES.gpus)


def test_a_gpu_without_a_price() -> None:
    found = cost(plan(sandbox(gpus=("Z900:2",))), LIST_PRICES)
    assert (found.ceiling, found.unpriced) == (None, ("Z900",))
    with pytest.raises(CostLimitError, match="Z900"):
        check_limit(found, Decimal(10**9))


def test_the_sandboxes_of_a_dynamic_pipeline_are_not_known_before() -> None:
    steps = [PlannedStep("a", sandbox=sandbox(10, gpus=("H100:8",)))]
    found = cost(dataclasses.replace(plan(sandbox(10), *steps), dynamic=True))
    assert found.ceiling is None
    assert found.unpriced == ()
    with pytest.raises(CostLimitError, match="the pipeline's function decides") as caught:
        check_limit(found, Decimal(10**9))
    assert caught.value.hint is not None
    assert "mode: pipeline" in caught.value.hint
    inline = cost(dataclasses.replace(plan(sandbox(10)), dynamic=True))
    assert inline.ceiling == inline.run.ceiling, "all of its steps are in one sandbox"


def test_steps_cost_their_retries_but_not_more_than_the_run() -> None:
    steps = [
        PlannedStep("a", retries=2, sandbox=sandbox(1000)),
        PlannedStep("b", ("a",), retries=9, sandbox=sandbox(1000)),
    ]
    found = cost(plan(sandbox(5000), *steps), LIST_PRICES)
    assert found.steps["a"].seconds == 3000
    assert found.steps["b"].seconds == 5000
    assert found.ceiling == sum(c.ceiling or 0 for c in (found.run, *found.steps.values()))


def test_a_lost_sandbox_costs_as_much_as_one_that_is_not_lost() -> None:
    steps = [PlannedStep("a", retries=1, sandbox=sandbox(1000))]
    assert cost(plan(sandbox(5000), *steps, lost=2)).steps["a"].seconds == 4000


def test_steps_that_a_rerun_skips_cost_nothing() -> None:
    steps = [PlannedStep(name, sandbox=sandbox(1000, gpus=("T4",))) for name in "ab"]
    whole = cost(plan(sandbox(1000), *steps))
    part = cost(plan(sandbox(1000), *steps), skipped=("a",))
    assert part.steps == whole.steps
    assert whole.ceiling is not None
    assert part.ceiling == whole.ceiling - (part.steps["a"].ceiling or 0)


def test_no_more_steps_than_allowed_cost_at_once() -> None:
    steps = [PlannedStep(f"s{i}", sandbox=sandbox(1000, gpus=("T4",))) for i in range(10)]
    wide = cost(plan(sandbox(1000), *steps), LIST_PRICES)
    narrow = cost(plan(sandbox(1000), *steps, at_once=2), LIST_PRICES)
    assert wide.ceiling is not None
    assert narrow.ceiling is not None
    assert wide.run.ceiling is not None
    assert narrow.ceiling - wide.run.ceiling == (wide.ceiling - wide.run.ceiling) / 5


def test_the_limit() -> None:
    found = cost(plan(sandbox(gpus=("A100",))), LIST_PRICES)
    assert found.ceiling is not None
    check_limit(found, found.ceiling)
    with pytest.raises(CostLimitError) as caught:
        check_limit(found, found.ceiling - Decimal("0.0000001"))
    assert caught.value.exit_code == 10
    assert "Nothing was created" in caught.value.message


@given(
    timeout=st.integers(1, 86_400),
    cpu=st.integers(125, 64_000).map(lambda m: m / 1000),
    memory=st.integers(128, 400_000),
    gpu=st.sampled_from([None, *LIST_PRICES.gpus]),
)
def test_money_is_exact_and_grows_with_the_timeout(
    timeout: int, cpu: float, memory: int, gpu: str | None
) -> None:
    spec = sandbox(timeout, cpu=cpu, memory=memory, gpus=(gpu,) if gpu else ())
    one = cost(plan(dataclasses.replace(spec, timeout=1)), LIST_PRICES).ceiling
    assert one is not None
    assert cost(plan(spec), LIST_PRICES).ceiling == one * timeout


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "$0.0000"),
        ("0.000003", "below $0.0001"),
        ("0.0001", "$0.0001"),
        ("0.00011", "$0.0002"),
        ("1.001", "$1.01"),
        ("12345.6", "$12,345.60"),
    ],
)
def test_dollars(amount: str, shown: str) -> None:
    assert dollars(Decimal(amount)) == shown
