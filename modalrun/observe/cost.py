"""Estimate what a run has cost: for each sandbox, its time by what it requested. Pure.

A sandbox exists a little longer than its step. Modal bills the higher of what was requested
and what was used; only the request is known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from modalrun.plan.pricing import LIST_PRICES, PriceTable, dollars, per_second, without_price
from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.progress import RunProgress, Usage
from modalrun.run.records import RunRecord, StepRecord
from modalrun.run.run_plan import RunPlan
from modalrun.run.sandbox_spec import (
    DEFAULT_CORES,
    DEFAULT_MEMORY_MIB,
    Resources,
    SandboxSpec,
)


@dataclass(frozen=True)
class RunCost:
    """What a run has cost, in USD by list prices; None where a price is not known.

    Attributes:
        total: The whole run.
        steps: Its steps, as far as they ran.
    """

    total: Decimal | None
    steps: Mapping[str, Decimal | None]


def cost_details(
    plan: RunPlan,
    progress: RunProgress,
    gpu: str | None,
    began: float,
    now: float,
    *,
    resumed: bool = False,
) -> list[tuple[str, str]]:
    """Return labels and values for a summary: the cost by list prices, and what waiting costs.

    Args:
        progress: The times of the step sandboxes.
        gpu: The run sandbox's GPU.
        began: When the run sandbox was created, in seconds since the epoch.
        now: When it ended.
        resumed: Whether an earlier driver has run a part of it, which is not counted.
    """
    sandboxes = {step.name: step.sandbox for step in plan.steps}

    def spent(times: Iterable[Usage]) -> list[Decimal | None]:
        return [
            _spent(sandbox, used.gpu, used.seconds(now))
            for used in times
            if (sandbox := sandboxes.get(used.step)) is not None
        ]

    idle = spent(progress.idle)
    amounts = [_spent(plan.run_sandbox, gpu, now - began), *spent(progress.usage.values()), *idle]
    details = []
    if (total := _total(amounts)) is not None:
        about = f"about {dollars(total)}" + (" since the resume" if resumed else "")
        prices = f"list prices of {LIST_PRICES.as_of}"
        if plan.target == "local":
            details.append(("cost", f"nothing here; on Modal {about} ({prices})"))
        else:
            details.append(("cost", f"{about} ({prices}, by what was requested)"))
    else:
        gpus = (gpu, *(used.gpu for used in progress.usage.values()))
        names = ", ".join(without_price(one for one in gpus if one))
        details.append(("cost", f"unknown: no price for {names}"))
    seconds = sum(used.seconds(now) for used in progress.idle)
    if seconds >= 0.05:
        price = f", {dollars(waiting)}" if (waiting := _total(idle)) is not None else ""
        details.append(("idle", f"{seconds:.1f} s in sandboxes that were kept warm{price}"))
    return details


def estimate(
    run: RunRecord, attempts: Sequence[StepRecord], now: datetime, table: PriceTable
) -> Decimal | None:
    """Estimate the cost of a recorded run in USD; None where it is not known.

    Args:
        attempts: All attempts of its steps, in `per_step` mode.
        now: The present, at which sandboxes without an end are counted.
    """
    if run.place is not None and (
        run.place.target == "local" or (run.metadata is None and run.finished)
    ):
        # A run that ended without a sandbox costs nothing.
        return Decimal(0)
    return spent(run, attempts, now, table).total


def spent(
    run: RunRecord, attempts: Sequence[StepRecord], now: datetime, table: PriceTable
) -> RunCost:
    """Estimate the cost of a recorded run and of its steps, as if it had run in Modal's cloud.

    Args:
        attempts: All attempts of its steps. Those without a sandbox of their own share the cost of
            the run sandbox by their times.
        now: The present, at which sandboxes without an end are counted.
    """
    if run.metadata is None:
        return RunCost(None, {})
    whole = _amount(run.metadata, run.start, run.end, now, table)
    steps: dict[str, Decimal | None] = {}
    # The metadata of a cached step are those of the run that it is from.
    ran = [a for a in attempts if a.status not in {"cached", "skipped"}]
    times = [_seconds(a.start, a.end, now) for a in ran if a.metadata is None]
    longest = max(sum(times), _seconds(run.start, run.end, now)) or 1.0
    amounts = [whole]
    for a in ran:
        if a.metadata is not None:
            one = _amount(a.metadata, a.start, a.end, now, table, idle=a.metadata.idle or 0.0)
            amounts.append(one)
        else:
            share = Decimal(str(_seconds(a.start, a.end, now) / longest))
            one = None if whole is None else whole * share
        steps[a.name] = _total([steps.get(a.name, Decimal(0)), one])
    return RunCost(_total(amounts), steps)


def _spent(sandbox: SandboxSpec, gpu: str | None, seconds: float) -> Decimal | None:
    gpus = (gpu,) if gpu else ()
    asked = Resources(gpus, sandbox.resources.cpu, sandbox.resources.memory)
    return _cost(asked, sandbox.regions, seconds, LIST_PRICES)


def _amount(
    metadata: RunMetadata | StepMetadata,
    start: datetime | None,
    end: datetime | None,
    now: datetime,
    table: PriceTable,
    *,
    idle: float = 0.0,
) -> Decimal | None:
    if start is None:
        return Decimal(0)
    regions = metadata.regions.split(",") if metadata.regions else []
    seconds = _seconds(start, end, now) + idle
    gpus = (metadata.gpu,) if metadata.gpu else ()
    asked = Resources(gpus, metadata.cpu or DEFAULT_CORES, metadata.memory or DEFAULT_MEMORY_MIB)
    return _cost(asked, regions, seconds, table)


def _seconds(start: datetime | None, end: datetime | None, now: datetime) -> float:
    return max(0.0, ((end or now) - start).total_seconds()) if start else 0.0


def _cost(
    asked: Resources, regions: Sequence[str], seconds: float, table: PriceTable
) -> Decimal | None:
    """Return the cost of a sandbox by its requests; None if its GPU has no known price."""
    rate = per_second(asked, regions, table)
    return None if rate is None else rate * Decimal(str(seconds))


def _total(amounts: Sequence[Decimal | None]) -> Decimal | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal(0)) if len(known) == len(amounts) else None
