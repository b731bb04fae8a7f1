"""List runs and what they have cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal

from modalrun.errors import NotFoundError, UsageError
from modalrun.observe.cost import estimate
from modalrun.plan.pricing import LIST_PRICES
from modalrun.run.outcome import PAUSED
from modalrun.run.records import STATES, RunRecord
from modalrun.util.nearest import did_you_mean
from modalrun.zenml_api.gateway import ZENML, ZenMLGateway


@dataclass(frozen=True)
class ListedRun:
    """A run of the list.

    Attributes:
        cost: Its estimated cost so far in USD by Modal's list prices; None where it is not known,
            0 on the local Modal server.
    """

    run: RunRecord
    cost: Decimal | None


def with_costs(found: Sequence[RunRecord]) -> list[ListedRun]:
    """Add what runs have cost.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    priced = [
        run
        for run in found
        if run.metadata
        and run.metadata.target == "modal"
        and (run.metadata.mode == "per_step" or run.status == PAUSED)
    ]
    attempts = ZENML.step_attempts(priced)
    now = datetime.now(timezone.utc)
    return [
        ListedRun(run, estimate(run, attempts.get(run.id, []), now, LIST_PRICES)) for run in found
    ]


def check_pipeline(name: str, *, zenml: ZenMLGateway = ZENML) -> None:
    """Check that a pipeline has run, started by modalrun or not.

    Raises:
        NotFoundError: None of that name has.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    if not zenml.newest_runs(limit=1, pipeline=name, everybodys=True):
        others = [run.pipeline for run in zenml.newest_runs(limit=100, everybodys=True)]
        hint = did_you_mean(name, others, "'modalrun list --all' shows the runs.")
        raise NotFoundError(f"No pipeline '{name}' has run.", hint=hint)


def check_states(states: Iterable[str]) -> list[str]:
    """Normalize states to filter by.

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
