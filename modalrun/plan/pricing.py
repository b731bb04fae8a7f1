"""Plan -> money. Pure, and exact: every amount is a Decimal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal

from modalrun.errors import CostLimitError
from modalrun.plan.catalog import gpu_name
from modalrun.plan.prices import PriceTable
from modalrun.plan.resources import MIN_CORES, MIN_MEMORY_MIB
from modalrun.run.run_plan import RunPlan
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.spec.fields import split_gpu

HOUR = 3600


@dataclass(frozen=True)
class SandboxCost:
    """What one sandbox costs.

    Attributes:
        per_hour: USD for an hour of the dearest GPU that it may get; None where the price of that
            GPU type is not known.
        seconds: How long it can run at most, its retries included.
        ceiling: `per_hour` for all of these seconds.
    """

    per_hour: Decimal | None
    seconds: int
    ceiling: Decimal | None


@dataclass(frozen=True)
class Cost:
    """What a run costs at most.

    Attributes:
        run: The run sandbox.
        steps: The steps' sandboxes, by step (`per_step` mode).
        ceiling: All of them together; None where one has no known price.
        unpriced: GPU types without a price.
        has_limits: Whether every sandbox has limits on CPU and memory, so that the ceiling holds
            even for a run that uses more than it requests.
        table: The prices.
    """

    run: SandboxCost
    steps: Mapping[str, SandboxCost]
    ceiling: Decimal | None
    unpriced: tuple[str, ...]
    has_limits: bool
    table: PriceTable


def cost(plan: RunPlan, table: PriceTable) -> Cost:
    """The price of a plan: for each sandbox an hour's price and timeout times price.

    A run can't outlast its run sandbox, and no more steps than `max_parallelism` run at once; the
    ceiling takes both into account.
    """
    longest = plan.run_sandbox.timeout
    run = _sandbox_cost(plan.run_sandbox, longest, table)
    steps = {
        step.name: _sandbox_cost(
            step.sandbox, min(longest, step.sandbox.timeout * (1 + step.retries)), table
        )
        for step in plan.steps
        if step.sandbox is not None
    }
    every = [run, *steps.values()]
    unpriced = tuple(
        dict.fromkeys(
            split_gpu(gpu)[0]
            for sandbox in plan.sandboxes
            for gpu in sandbox.resources.gpus
            if gpu_name(gpu) not in table.gpus
        )
    )
    return Cost(
        run=run,
        steps=steps,
        ceiling=None
        if unpriced
        else _total(run, list(steps.values()), plan.settings.max_parallelism),
        unpriced=unpriced,
        has_limits=all(
            s.resources.cpu_limit is not None and s.resources.memory_limit is not None
            for s in plan.sandboxes
        )
        and bool(every),
        table=table,
    )


def spent(
    sandbox: SandboxSpec, gpu: str | None, seconds: float, table: PriceTable
) -> Decimal | None:
    """What a sandbox cost that ran for so long; None where its GPU has no known price.

    Modal bills the higher of what was requested and what was used; only the request is known here.

    Args:
        sandbox: As it was planned.
        gpu: The GPU that it got in the end.
        seconds: How long it was there.
        table: The prices.
    """
    asked = replace(
        sandbox.resources, gpus=(gpu,) if gpu else (), cpu_limit=None, memory_limit=None
    )
    rate = _per_second(replace(sandbox, resources=asked), table)
    return None if rate is None else rate * Decimal(str(seconds))


def check_limit(found: Cost, limit: Decimal) -> None:
    """Refuse a run that can cost more than its user allows.

    Raises:
        CostLimitError: The ceiling is higher than the limit, or not known.
    """
    if found.ceiling is None:
        raise CostLimitError(
            f"The price of the GPU type {', '.join(found.unpriced)} is not known, so the limit of"
            f" {dollars(limit)} can't be kept.",
            effect="Nothing was created.",
            hint="Name a type that has a price ('modalrun plan' shows them), or remove the limit.",
        )
    if found.ceiling > limit:
        raise CostLimitError(
            f"The run can cost up to {dollars(found.ceiling)} (timeout x price), the limit is"
            f" {dollars(limit)}.",
            effect="Nothing was created.",
            hint="Lower 'timeout' or the resources, or raise the limit. 'modalrun plan' shows what"
            " costs how much.",
        )


def dollars(amount: Decimal) -> str:
    """An amount as people read it, rounded up to a cent; tiny ones to a thousandth of one."""
    places = Decimal("0.01") if amount >= 1 else Decimal("0.0001")
    return f"${amount.quantize(places, ROUND_CEILING):,}"


def _sandbox_cost(sandbox: SandboxSpec, seconds: int, table: PriceTable) -> SandboxCost:
    rate = _per_second(sandbox, table)
    if rate is None:
        return SandboxCost(None, seconds, None)
    return SandboxCost(rate * HOUR, seconds, rate * seconds)


def _per_second(sandbox: SandboxSpec, table: PriceTable) -> Decimal | None:
    asked = sandbox.resources
    return per_second(
        asked.gpus,
        asked.cpu_limit or asked.cpu,
        asked.memory_limit or asked.memory,
        sandbox.regions,
        table,
    )


def per_second(
    gpus: Sequence[str],
    cores: float | None,
    mib: int | None,
    regions: Sequence[str],
    table: PriceTable,
) -> Decimal | None:
    """The price of a sandbox in USD per second; None where a GPU type's price is not known.

    Args:
        gpus: The GPUs that it may get; the dearest counts.
        cores: Its CPU cores; None for Modal's default.
        mib: Its memory; None for Modal's default.
        regions: Where it may run; the cheapest counts.
        table: The prices.
    """
    total = Decimal(str(cores or MIN_CORES)) * table.cpu
    total += Decimal(mib or MIN_MEMORY_MIB) / 1024 * table.memory
    prices = []
    for gpu in gpus:
        price = table.gpus.get(gpu_name(gpu))
        if price is None:
            return None
        prices.append(price * (split_gpu(gpu)[1] or 1))
    total += max(prices, default=Decimal(0))
    factors = [table.regions.get(r.lower(), table.other_region) for r in regions]
    return total * min(factors, default=Decimal(1))


def _total(run: SandboxCost, steps: list[SandboxCost], at_once: int | None) -> Decimal:
    of_run = run.ceiling or Decimal(0)
    of_steps = sum((s.ceiling or Decimal(0) for s in steps), Decimal(0))
    if at_once is not None:
        dearest = sorted((s.per_hour or Decimal(0) for s in steps), reverse=True)[:at_once]
        of_steps = min(of_steps, sum(dearest, Decimal(0)) * run.seconds / HOUR)
    return of_run + of_steps
