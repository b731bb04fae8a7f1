"""Estimate what a run has cost: for each sandbox, its time by what it requested. Pure.

The records in ZenML are all that counts, so that every command tells the same. What is not in them:
the last wait of a sandbox that was kept warm for no further step, and the sandboxes that a lost one
or an earlier driver had. Modal bills the higher of what was requested
and what was used; only the request is known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from modalrun.plan.pricing import LIST_PRICES, PriceTable, dollars, per_second, without_price
from modalrun.run.events import Idle
from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.outcome import PAUSED
from modalrun.run.records import RunRecord, StepRecord
from modalrun.run.run_plan import RunPlan
from modalrun.run.sandbox_spec import DEFAULT_CORES, DEFAULT_MEMORY_MIB, Resources


@dataclass(frozen=True)
class RunCost:
    """What a run has cost, in USD by list prices; None where a price is not known.

    Attributes:
        total: The whole run.
        steps: Its steps, as far as they ran.
        resumed: Whether it had another run sandbox before, which is not counted.
    """

    total: Decimal | None
    steps: Mapping[str, Decimal | None]
    resumed: bool = False

    @property
    def about(self) -> str | None:
        """The total in words, with what it leaves out; None if it is not known."""
        if self.total is None:
            return None
        before = " without the run sandbox before the resume" if self.resumed else ""
        amount = dollars(self.total)
        return f"{'' if amount.startswith('below') else 'about '}{amount}{before}"


def cost_details(
    plan: RunPlan,
    run: RunRecord,
    attempts: Sequence[StepRecord],
    idle: Sequence[Idle],
    now: datetime,
) -> list[tuple[str, str]]:
    """Return labels and values for a summary: the cost by list prices, and what waiting costs.

    Args:
        run: The record of the run, which has ended.
        idle: The times in which step sandboxes have waited for another step.
    """
    sandboxes = {step.name: step.sandbox for step in plan.steps}
    details = []
    gpus = [run.metadata and run.metadata.gpu, *(a.metadata and a.metadata.gpu for a in attempts)]
    if (about := spent(run, attempts, now, LIST_PRICES).about) is not None:
        prices = f"list prices of {LIST_PRICES.as_of}"
        if plan.target == "local":
            details.append(("cost", f"nothing here; on Modal {about} ({prices})"))
        else:
            details.append(("cost", f"{about} ({prices}, by what was requested)"))
    elif names := without_price(gpu for gpu in gpus if gpu):
        details.append(("cost", f"unknown: no price for {', '.join(names)}"))
    seconds = sum(one.seconds for one in idle)
    if seconds >= 0.05:
        waiting = _total(
            [
                _cost(one.gpu, sandbox.resources, sandbox.regions, one.seconds, LIST_PRICES)
                for one in idle
                if (sandbox := sandboxes.get(one.step)) is not None
            ]
        )
        price = f", {dollars(waiting)}" if waiting is not None else ""
        details.append(("idle", f"{seconds:.1f} s in sandboxes that were kept warm{price}"))
    return details


def estimate(
    run: RunRecord, attempts: Sequence[StepRecord], now: datetime, table: PriceTable
) -> Decimal | None:
    """Estimate the cost of a recorded run in USD; None where it is not known.

    Args:
        attempts: All attempts of its steps, in `per_step` mode or if it is paused.
        now: The present.
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
        now: The present. Sandboxes without an end are counted until then, and at most until the run
            sandbox's timeout; those of a paused run until the end of its last step.
    """
    if run.metadata is None:
        return RunCost(None, {})
    now = run.latest(now)
    if run.status == PAUSED:
        now = max((a.end for a in attempts if a.end), default=now)
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
    return RunCost(_total(amounts), steps, resumed=bool(run.metadata.earlier))


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
    # The run sandbox is paid from its creation on, that of a step from its first process on.
    began = metadata.created if isinstance(metadata, RunMetadata) else metadata.started
    seconds = max(0.0, (end or now).timestamp() - (began or start.timestamp())) + idle
    asked = Resources((), metadata.cpu or DEFAULT_CORES, metadata.memory or DEFAULT_MEMORY_MIB)
    return _cost(metadata.gpu, asked, regions, seconds, table)


def _seconds(start: datetime | None, end: datetime | None, now: datetime) -> float:
    return max(0.0, ((end or now) - start).total_seconds()) if start else 0.0


def _cost(
    gpu: str | None, asked: Resources, regions: Sequence[str], seconds: float, table: PriceTable
) -> Decimal | None:
    """Return the cost of a sandbox by its requests; None if its GPU has no known price."""
    gpus = (gpu,) if gpu else ()
    rate = per_second(Resources(gpus, asked.cpu, asked.memory), regions, table)
    return None if rate is None else rate * Decimal(str(seconds))


def _total(amounts: Sequence[Decimal | None]) -> Decimal | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal(0)) if len(known) == len(amounts) else None
