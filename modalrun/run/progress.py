"""Derive the progress of each step from a run's events. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.events import FINAL, Idle, Redraw, StepEvent
from modalrun.run.failure import Failure
from modalrun.run.records import NOT_RUN, StepRecord


@dataclass
class StepProgress:
    """A step as it is shown. Times are in seconds since the epoch.

    Attributes:
        name: Its invocation id.
        state: `StepState`, "waiting" before its first event, or ZenML's status once it is recorded.
        started: When its last attempt began; in the first sandbox, if that was lost.
        ended: When that came to its final state.
        attempt: Number of the attempt as ZenML counts them, from 1.
        sandboxes: How many sandboxes it has had, with those that were lost.
        sandbox: Its sandbox, where it has one of its own.
        gpu: That sandbox's GPU.
        reason: Why it ended as it did.
        failure: What ZenML has stored of that.
        next: What to do about a failure, where that is known.
        capacity_wait: What it waits for, if Modal has no place for it.
        progress: What its progress bar shows now; empty if it has none.
    """

    name: str
    state: str = "waiting"
    started: float | None = None
    ended: float | None = None
    attempt: int = 1
    sandboxes: int = 1
    sandbox: str | None = None
    gpu: str | None = None
    reason: str | None = None
    failure: Failure | None = None
    next: str | None = None
    capacity_wait: CapacityWait | None = None
    progress: str = ""

    @property
    def final(self) -> bool:
        """Whether the step has ended for good."""
        return self.state in FINAL

    def seconds(self, now: float) -> float | None:
        """Return the seconds that its last attempt has taken so far; None before it began."""
        if self.started is None:
            return None
        return max(0.0, (self.ended or now) - self.started)

    def recorded_as(self, record: StepRecord | None) -> StepProgress:
        """Return the step with the status, attempt and times that ZenML records.

        A ZenML server on MariaDB or MySQL stores whole seconds; the run's own times of the same
        attempt stay then.
        """
        ended = self.final and self.state != "stopped"
        if record is not None and record.status == NOT_RUN and not ended:
            # It was about to run when the run, or its sandbox, ended.
            return StepProgress(self.name, "not run")
        if record is None or record.status == NOT_RUN:
            return replace(self, state="not run" if self.state == "waiting" else self.state)
        step = replace(
            self,
            state=record.status,
            attempt=record.attempt,
            reason=record.reason or self.reason,
            failure=record.failure,
            next=record.next,
        )
        if not self._is_more_exact(record):
            step.started, step.ended = record.began, record.ended
        return step

    def _is_more_exact(self, record: StepRecord) -> bool:
        if self.started is None or self.ended is None or self.ended < self.started:
            return False
        pairs = ((self.started, record.began), (self.ended, record.ended))
        return all(
            stored is not None and stored.is_integer() and abs(own - stored) < 2
            for own, stored in pairs
        )


class RunProgress:
    """The progress of all steps of a run.

    Attributes:
        rows: By step, in the graph's order.
        idle: The times in which step sandboxes have waited for another step.
    """

    def __init__(self, steps: Iterable[str]) -> None:
        self.rows = {step: StepProgress(step) for step in steps}
        self.idle: list[Idle] = []

    def apply(self, event: StepEvent | Idle | Redraw) -> None:
        """Update a step by an event; a replacement driver may repeat events."""
        if isinstance(event, Idle):
            self.idle.append(event)
            return
        if isinstance(event, Redraw):
            # The end of a step can overtake its last lines.
            if (row := self.rows.get(event.step)) is not None and not row.final:
                row.progress = event.text
            return
        row = self.rows.setdefault(event.step, StepProgress(event.step))
        if event.attempt < row.sandboxes:
            return
        if event.attempt > row.sandboxes:
            row.sandbox = row.gpu = None
        again = row.state == "running" and event.attempt == row.sandboxes
        state = event.state
        if state == "running" and not event.begun and not again:
            # The sandbox has yet to start Python and ZenML.
            state = "starting"
        if event.tries != row.attempt:
            row.started = None
        row.attempt, row.sandboxes = event.tries, event.attempt
        row.sandbox = event.sandbox or row.sandbox
        row.gpu = event.gpu or row.gpu
        row.reason = event.reason
        row.capacity_wait = event.capacity_wait
        if state != row.state:
            row.progress = ""
        if state == "running" and not again:
            row.started, row.ended = row.started or event.began or event.at, None
        if row.started is None:
            row.started = event.began
        if event.state in FINAL and row.ended is None:
            row.ended = event.at
        row.state = state

    def counts(self) -> Counter[str]:
        """Count the steps in each state."""
        return Counter(row.state for row in self.rows.values())

    def chosen(self, limit: int) -> list[StepProgress]:
        """Choose at most `limit` steps to show, in the graph's order.

        Active steps take precedence, then failed ones, then those that ended last, then the rest.
        """
        rows = list(self.rows.values())
        if len(rows) <= limit:
            return rows
        rank = {"running": 0, "starting": 1, "retrying": 1, "failed": 2}
        order = sorted(
            range(len(rows)),
            key=lambda i: (
                rank.get(rows[i].state, 3 if rows[i].final else 4),
                -(rows[i].ended or 0) if rows[i].final else i,
            ),
        )
        return [rows[i] for i in sorted(order[: max(0, limit)])]
