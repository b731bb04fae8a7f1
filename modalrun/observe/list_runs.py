"""List runs and what they have cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from decimal import Decimal

from modalrun.errors import NotFoundError, UsageError
from modalrun.observe.cost import estimate
from modalrun.observe.status import child_attempts
from modalrun.plan.pricing import LIST_PRICES
from modalrun.run.metadata import Announced, RunMetadata
from modalrun.run.outcome import PAUSED
from modalrun.run.records import STATES, RunRecord
from modalrun.util.nearest import did_you_mean
from modalrun.zenml_api.gateway import ZENML, ZenMLGateway


@dataclass(frozen=True)
class ListedRun:
    """A run of the list.

    Attributes:
        cost: Its estimated cost so far in USD by Modal's list prices; None where it is not known,
            0 on the local Modal server, and for a child pipeline: it is in that of `root`.
        root: The run in whose sandboxes it runs, if it is a child pipeline's.
    """

    run: RunRecord
    cost: Decimal | None
    root: RunRecord | None = None

    @property
    def place(self) -> RunMetadata | Announced | None:
        """Its target, mode and app; None for a run that modalrun did not start."""
        return (self.root or self.run).place


def with_costs(found: Sequence[RunRecord], *, zenml: ZenMLGateway = ZENML) -> list[ListedRun]:
    """Add what runs have cost, and where those of child pipelines run.

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
    attempts = zenml.step_attempts(priced)
    for run in priced:
        parent = replace(run, children=zenml.child_runs(run))
        attempts[run.id] += child_attempts(parent, zenml=zenml)
    now = datetime.now(timezone.utc)
    known = {run.id: run for run in found}
    for run in found:
        if run.root is not None and run.root not in known:
            known[run.root] = zenml.read_run(run.root)
    listed = []
    for run in found:
        cost = estimate(run, attempts.get(run.id, []), now, LIST_PRICES)
        root = known[run.root] if run.root is not None else None
        listed.append(ListedRun(run, Decimal(0) if root and root.place else cost, root))
    return listed


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
