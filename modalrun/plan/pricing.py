"""Price a plan by Modal's list prices. Pure, and exact: every amount is a Decimal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal

from modalrun.errors import CostLimitError
from modalrun.run.run_plan import RunPlan
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.spec.fields import split_gpu
from modalrun.util.modal_catalog import BROAD_REGIONS, gpu_name

HOUR = 3600

HIGH_CEILING = Decimal(10)
"""The plan has a note about a run that can cost more, in USD."""


@dataclass(frozen=True)
class PriceTable:
    """Hold prices in USD for a second: of a physical core, a GiB of memory, a GPU of each type.

    `broad_region` and `narrow_region` are factors on the whole bill when regions are requested.
    """

    as_of: str
    source: str
    cpu: Decimal
    memory: Decimal
    gpus: Mapping[str, Decimal]
    broad_region: Decimal = Decimal(1)
    narrow_region: Decimal = Decimal(1)


# To change a price, change it here, and the date.
LIST_PRICES = PriceTable(
    as_of="2026-09-01",
    source="modal.com/pricing (sandbox rates)",
    cpu=Decimal("0.00003942"),
    memory=Decimal("0.00000667"),
    gpus={
        "T4": Decimal("0.000164"),
        "L4": Decimal("0.000222"),
        "A10": Decimal("0.000306"),
        "L40S": Decimal("0.000542"),
        "A100": Decimal("0.000583"),
        "A100-40GB": Decimal("0.000583"),
        "A100-80GB": Decimal("0.000694"),
        "RTX-PRO-6000": Decimal("0.000842"),
        "H100": Decimal("0.001097"),
        "H100!": Decimal("0.001097"),
        "H200": Decimal("0.001261"),
        "B200": Decimal("0.001736"),
        "B200+": Decimal("0.001736"),
        "B300": Decimal("0.001972"),
        # Modal chooses the type; a ceiling has to hold for the dearest.
        "ANY": Decimal("0.001972"),
    },
    # modal.com/docs/guide/region-selection, 2026-09-01. Modal has changed these factors twice in a
    # year; later quotes are lower (1.15 for "us").
    broad_region=Decimal("1.5"),
    narrow_region=Decimal("1.75"),
)


@dataclass(frozen=True)
class SandboxCost:
    """Hold the most that one sandbox can cost, in USD; None if a GPU has no known price.

    Attributes:
        per_hour: An hour with the dearest GPU that it may get.
        seconds: How long it can run at most, its retries included.
        ceiling: `per_hour` for all of these seconds.
    """

    per_hour: Decimal | None
    seconds: int
    ceiling: Decimal | None


@dataclass(frozen=True)
class Cost:
    """Hold the most that a run can cost.

    Attributes:
        steps: The steps' sandboxes, by step (`per_step` mode).
        ceiling: All sandboxes together, in USD; None if that is not known.
        unpriced: GPU types without a price.
        unknown: Why the ceiling is not known; None if it is.
        has_limits: Whether every sandbox has limits on CPU and memory, so that the ceiling holds
            even for a run that uses more than it requests.
    """

    run: SandboxCost
    steps: Mapping[str, SandboxCost]
    ceiling: Decimal | None
    unpriced: tuple[str, ...]
    unknown: str | None
    has_limits: bool
    table: PriceTable


def cost(plan: RunPlan, table: PriceTable = LIST_PRICES, *, skipped: Collection[str] = ()) -> Cost:
    """Price a plan: for each sandbox an hour's price, and timeout times price.

    A run can't outlast its run sandbox, and no more steps than `max_parallelism` run at once; the
    ceiling takes both into account. A lost sandbox may be lost at the end of its timeout. With
    `keep_warm`, each attempt may be followed by a wait, and sandboxes that wait do not count for
    `max_parallelism`. How many sandboxes a dynamic pipeline starts in `per_step` mode, and with
    which resources, only its function knows.

    Args:
        skipped: Steps that the run takes from an earlier one; they are not in the ceiling.
    """
    longest = plan.run_sandbox.timeout
    warm, lost = plan.settings.keep_warm, plan.settings.infrastructure_retries
    run = _sandbox_cost(plan.run_sandbox, longest, table)
    steps = {
        step.name: _sandbox_cost(
            step.sandbox,
            min(longest, (step.sandbox.timeout + warm) * (1 + step.retries + lost)),
            table,
        )
        for step in plan.steps
        if step.sandbox is not None
    }
    resources = [sandbox.resources for sandbox in plan.sandboxes]
    gpus = [gpu for asked in resources for gpu in asked.gpus]
    unpriced = without_price(gpus, table)
    at_once = None if warm else plan.settings.max_parallelism
    total = _total(run, [one for name, one in steps.items() if name not in skipped], at_once)
    unknown = None
    if unpriced:
        unknown = f"no price for the GPU type {', '.join(unpriced)}"
    elif plan.dynamic and plan.settings.mode == "per_step":
        unknown = "the pipeline's function decides how many sandboxes its steps get"
    return Cost(
        run=run,
        steps=steps,
        ceiling=None if unknown else total,
        unpriced=unpriced,
        unknown=unknown,
        has_limits=all(None not in (asked.cpu_limit, asked.memory_limit) for asked in resources),
        table=table,
    )


def without_price(gpus: Iterable[str], table: PriceTable = LIST_PRICES) -> tuple[str, ...]:
    """Return the types among some GPUs whose price is not known, each once."""
    types = (split_gpu(gpu)[0] for gpu in gpus if gpu_name(gpu) not in table.gpus)
    return tuple(dict.fromkeys(types))


def check_limit(cost: Cost, limit: Decimal) -> None:
    """Refuse a run that can cost more than the limit.

    Raises:
        CostLimitError: The ceiling is higher than the limit, or not known.
    """
    if cost.ceiling is None:
        raise CostLimitError(
            f"What the run can cost is not known ({cost.unknown}), so the limit of"
            f" {dollars(limit)} can't be kept.",
            effect="Nothing was created.",
            hint="Name a type that has a price ('modalrun plan' shows them), or remove the limit."
            if cost.unpriced
            else "Remove the limit, or use 'mode: pipeline', where all steps share one sandbox.",
        )
    if cost.ceiling > limit:
        raise CostLimitError(
            f"The run can cost up to {dollars(cost.ceiling)} (timeout x price), the limit is"
            f" {dollars(limit)}.",
            effect="Nothing was created.",
            hint="Lower 'timeout' or the resources, or raise the limit. 'modalrun plan' shows what"
            " costs how much.",
        )


def ceiling_note(plan: RunPlan, cost: Cost) -> str | None:
    """Return a note about a run on Modal with a high ceiling; None for another one."""
    if plan.target == "local" or cost.ceiling is None or cost.ceiling <= HIGH_CEILING:
        return None
    return (
        f"the run can cost up to {dollars(cost.ceiling)}, if it takes all of its timeout: set"
        " 'timeout' to what it needs, or a limit with 'submit --max-cost'"
    )


def dollars(amount: Decimal) -> str:
    """Format an amount, rounded up to a cent, or to a hundredth of one below a dollar."""
    least = Decimal("0.0001")
    if 0 < amount < least:
        return f"below ${least}"
    places = Decimal("0.01") if amount >= 1 else least
    # The default precision is too small for what very much memory costs.
    return f"${amount.quantize(places, ROUND_CEILING, Context(prec=60)):,}"


def per_second(
    asked: Resources, regions: Sequence[str], table: PriceTable = LIST_PRICES
) -> Decimal | None:
    """Return the price of a sandbox in USD per second; None if a GPU has no known price.

    The dearest GPU and the cheapest region count, and limits instead of requests.
    """
    cores = asked.cpu_limit or asked.cpu
    mib = asked.memory_limit or asked.memory
    total = Decimal(str(cores)) * table.cpu + Decimal(mib) / 1024 * table.memory
    prices = []
    for gpu in asked.gpus:
        price = table.gpus.get(gpu_name(gpu))
        if price is None:
            return None
        prices.append(price * (split_gpu(gpu)[1] or 1))
    total += max(prices, default=Decimal(0))
    factors = [
        table.broad_region if region.lower() in BROAD_REGIONS else table.narrow_region
        for region in regions
    ]
    return total * min(factors, default=Decimal(1))


def _sandbox_cost(sandbox: SandboxSpec, seconds: int, table: PriceTable) -> SandboxCost:
    rate = per_second(sandbox.resources, sandbox.regions, table)
    if rate is None:
        return SandboxCost(None, seconds, None)
    return SandboxCost(rate * HOUR, seconds, rate * seconds)


def _total(run: SandboxCost, steps: list[SandboxCost], at_once: int | None) -> Decimal:
    of_run = run.ceiling or Decimal(0)
    of_steps = sum((s.ceiling or Decimal(0) for s in steps), Decimal(0))
    if at_once is not None:
        dearest = sorted((s.per_hour or Decimal(0) for s in steps), reverse=True)[:at_once]
        of_steps = min(of_steps, sum(dearest, Decimal(0)) * run.seconds / HOUR)
    return of_run + of_steps
