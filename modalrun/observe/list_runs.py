"""`modalrun list`: the runs there are, and what they have cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal

from modalrun.errors import UsageError
from modalrun.plan import pricing
from modalrun.plan.pricing import LIST_PRICES, PriceTable
from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.records import RunRecord, StepRecord
from modalrun.run.sandbox_spec import Resources

STATES = (
    "initializing",
    "provisioning",
    "running",
    "stopping",
    "completed",
    "failed",
    "stopped",
)
"""ZenML's words for the states of a run that can be asked for (`ExecutionStatus`, 0.98.0)."""


@dataclass(frozen=True)
class ListedRun:
    """A run of the list.

    Attributes:
        run: ZenML's record.
        cost: About what it has cost so far in USD, by Modal's list prices; None where that is not
            known. Nothing for a run on the local Modal server.
    """

    run: RunRecord
    cost: Decimal | None


def listing(
    *,
    limit: int,
    states: Sequence[str] = (),
    pipeline: str | None = None,
    since: datetime | None = None,
    everybodys: bool = False,
) -> list[ListedRun]:
    """The newest runs, newest first. To be called inside `zenml_session`.

    Args:
        limit: How many at most.
        states: Only runs in one of these states, as ZenML calls them; empty for all.
        pipeline: Only runs of this pipeline.
        since: Only runs created at this moment (UTC) or later.
        everybodys: Whether runs count that modalrun did not start.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    from modalrun.zenml_api.records import queries

    found = queries.listed(
        limit=limit, states=states, pipeline=pipeline, since=since, everybodys=everybodys
    )
    priced = [r for r in found if r.metadata and r.metadata.target == "modal"]
    attempts = queries.sandbox_seconds(
        [r for r in priced if r.metadata and r.metadata.mode == "per_step"]
    )
    now = datetime.now(timezone.utc)
    return [ListedRun(r, estimate(r, attempts.get(r.id, []), now, LIST_PRICES)) for r in found]


def check_states(states: Iterable[str]) -> list[str]:
    """States to filter by, as ZenML calls them.

    Raises:
        UsageError: One of them is no state.
    """
    checked = [state.strip().lower() for state in states]
    for state in checked:
        if state not in STATES:
            raise UsageError(
                f"--state {state}: there is no such state.", hint=f"One of {', '.join(STATES)}."
            )
    return checked


def estimate(
    run: RunRecord, attempts: Sequence[StepRecord], now: datetime, table: PriceTable
) -> Decimal | None:
    """About what a run has cost: for each sandbox, its time by what it asked for. Pure.

    A sandbox is a little older than the step in it, and may use more than it asked for.

    Args:
        run: The run.
        attempts: All attempts of its steps, in `per_step` mode.
        now: The present (UTC), until when what has not ended has run.
        table: The prices.
    """
    if run.metadata is None:
        return None
    if run.metadata.target == "local":
        return Decimal(0)
    parts = [_cost(run.metadata, run.start, run.end, now, table)]
    parts += [_cost(a.metadata, a.start, a.end, now, table) for a in attempts if a.metadata]
    known = [part for part in parts if part is not None]
    return sum(known, Decimal(0)) if len(known) == len(parts) else None


def _cost(
    facts: RunMetadata | StepMetadata,
    start: datetime | None,
    end: datetime | None,
    now: datetime,
    table: PriceTable,
) -> Decimal | None:
    if start is None:
        return Decimal(0)
    regions = facts.regions.split(",") if facts.regions else []
    gpus = (facts.gpu,) if facts.gpu else ()
    rate = pricing.per_second(Resources(gpus, facts.cpu, facts.memory), regions, table)
    seconds = Decimal(str(max(0.0, ((end or now) - start).total_seconds())))
    return None if rate is None else rate * seconds
