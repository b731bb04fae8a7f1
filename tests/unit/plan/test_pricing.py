"""Plan -> money."""

import dataclasses
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.errors import CostLimitError
from modalrun.plan.catalog import GPUS_PER_SANDBOX
from modalrun.plan.docker_settings import ImageRecipe
from modalrun.plan.planner import Plan, SandboxSpec, StepPlan
from modalrun.plan.prices import LIST_PRICES
from modalrun.plan.pricing import account_rates, check_limit, cost, dollars
from modalrun.plan.resources import Resources

IMAGE = ImageRecipe("3.11")


def sandbox(timeout: int = 3600, regions: tuple[str, ...] = (), **asked: Any) -> SandboxSpec:
    return SandboxSpec(("x",), IMAGE, Resources(**asked), timeout, regions=regions)


def plan(run: SandboxSpec, *steps: StepPlan, at_once: int | None = None) -> Plan:
    return Plan("local", None, "app", "p", run, steps=steps, max_parallelism=at_once)


def test_an_hour_of_a_sandbox() -> None:
    found = cost(plan(sandbox(gpu="A100:2", cpu=4.0, memory=2048)), LIST_PRICES)
    per_second = 2 * Decimal("0.000583") + 4 * Decimal("0.00003942") + 2 * Decimal("0.00000667")
    assert found.run.per_hour == per_second * 3600
    assert found.ceiling == per_second * 3600


def test_modals_defaults_cost_too() -> None:
    found = cost(plan(sandbox()), LIST_PRICES)
    expected = Decimal("0.125") * Decimal("0.00003942") + Decimal("0.125") * Decimal("0.00000667")
    assert found.ceiling == expected * 3600


def test_a_ceiling_holds_for_the_dearest_gpu() -> None:
    dear = cost(plan(sandbox(gpu="H100")), LIST_PRICES).ceiling
    assert cost(plan(sandbox(gpu="T4", other_gpus=("H100",))), LIST_PRICES).ceiling == dear


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


@pytest.mark.parametrize("gpu", ["A10G", "a10", "A100-40GB", "H100!", "any"])
def test_names_of_gpus(gpu: str) -> None:
    assert cost(plan(sandbox(gpu=gpu)), LIST_PRICES).unpriced == ()


def test_every_known_gpu_has_a_price() -> None:
    assert set(GPUS_PER_SANDBOX) == set(LIST_PRICES.gpus)


def test_a_gpu_without_a_price() -> None:
    found = cost(plan(sandbox(gpu="Z900:2")), LIST_PRICES)
    assert (found.ceiling, found.unpriced) == (None, ("Z900",))
    with pytest.raises(CostLimitError, match="Z900"):
        check_limit(found, Decimal(10**9))


def test_steps_cost_their_retries_but_not_more_than_the_run() -> None:
    steps = [
        StepPlan("a", retries=2, sandbox=sandbox(1000)),
        StepPlan("b", ("a",), retries=9, sandbox=sandbox(1000)),
    ]
    found = cost(plan(sandbox(5000), *steps), LIST_PRICES)
    assert found.steps["a"].seconds == 3000
    assert found.steps["b"].seconds == 5000
    assert found.ceiling == sum(c.ceiling or 0 for c in (found.run, *found.steps.values()))


def test_no_more_steps_than_allowed_cost_at_once() -> None:
    steps = [StepPlan(f"s{i}", sandbox=sandbox(1000, gpu="T4")) for i in range(10)]
    wide = cost(plan(sandbox(1000), *steps), LIST_PRICES)
    narrow = cost(plan(sandbox(1000), *steps, at_once=2), LIST_PRICES)
    assert wide.ceiling is not None
    assert narrow.ceiling is not None
    assert wide.run.ceiling is not None
    assert narrow.ceiling - wide.run.ceiling == (wide.ceiling - wide.run.ceiling) / 5


def test_the_limit() -> None:
    found = cost(plan(sandbox(gpu="A100")), LIST_PRICES)
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
    spec = sandbox(timeout, cpu=cpu, memory=memory, gpu=gpu)
    one = cost(plan(dataclasses.replace(spec, timeout=1)), LIST_PRICES).ceiling
    assert one is not None
    assert cost(plan(spec), LIST_PRICES).ceiling == one * timeout


@pytest.mark.parametrize(
    ("amount", "shown"),
    [("0", "$0.0000"), ("0.00001", "$0.0001"), ("1.001", "$1.01"), ("12345.6", "$12,345.60")],
)
def test_dollars(amount: str, shown: str) -> None:
    assert dollars(Decimal(amount)) == shown


# The account's own rates. Modal doesn't document their names.


def test_rates_that_are_understood() -> None:
    rates = {
        "sandbox_cpu_core": Decimal("0.00002"),
        "sandbox_memory_gib": Decimal("0.000003"),
        "function_cpu_core": Decimal("0.00001"),
        "gpu_a100_80gb": Decimal("0.0005"),
        "gpu_a100": Decimal("0.0004"),
        "gpu_h100": Decimal("1.8"),
    }
    table = account_rates(rates, LIST_PRICES, "2026-11-23")
    assert table is not None
    assert (table.cpu, table.memory) == (Decimal("0.00002"), Decimal("0.000003"))
    assert table.gpus["A100"] == Decimal("0.0004")
    assert table.gpus["A100-80GB"] == Decimal("0.0005")
    assert table.gpus["H100"] == Decimal("1.8") / 3600
    assert table.gpus["T4"] == LIST_PRICES.gpus["T4"]
    assert table.as_of == "2026-11-23"


@pytest.mark.parametrize(
    "rates",
    [
        {},
        {"sandbox_cpu": Decimal(3)},
        {"sandbox_cpu": Decimal("0.00003"), "sandbox_cpu_b": Decimal("0.00004")},
        {"cpu": Decimal("0.00003"), "memory": Decimal("0.000006")},
    ],
)
def test_rates_that_are_not_understood(rates: dict[str, Decimal]) -> None:
    assert account_rates(rates, LIST_PRICES, "2026-11-23") is None
