"""What a driver finds that takes over from another one, and what it tells of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modalrun.run.events import StepEvent
from modalrun.run.records import StepRecord

if TYPE_CHECKING:
    from modalrun.modal_api.step_sandboxes import StepSandbox


@dataclass(frozen=True)
class Takeover:
    """What an earlier driver of the run has left behind.

    Attributes:
        members: The sandboxes that run.
        states: ZenML's record of each step that has one.
    """

    members: Sequence[StepSandbox]
    states: Mapping[str, StepRecord]


def told_again(
    states: Mapping[str, StepRecord], steps: Collection[str], now: float
) -> Iterator[StepEvent]:
    """The ends of steps that are done: who reads only this driver's journal needs them too.

    Args:
        states: ZenML's record of each step that has one.
        steps: The steps of the run whose ends nobody has told yet.
        now: In seconds since the epoch; for records without an end.
    """
    for name, state in states.items():
        if name not in steps or not state.successful:
            continue
        # The sandbox of a cached step belongs to another run.
        facts = None if state.status == "cached" else state.metadata
        again = facts.infrastructure_retries if facts is not None else None
        yield StepEvent(
            name,
            "cached" if state.status == "cached" else "completed",
            at=state.ended or now,
            # A try for infrastructure has a sandbox of its own, but no record.
            attempt=state.attempt + (again or 0),
            sandbox=facts.sandbox_id if facts is not None else None,
            gpu=facts.gpu if facts is not None else None,
            cpu=facts.cpu if facts is not None else None,
            memory=facts.memory if facts is not None else None,
            began=None if state.status == "cached" else state.began,
        )
