"""Restore the state that an earlier driver of a run has left, for the driver that replaces it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modalrun.driver.graph.static_step import StaticStep, is_running
from modalrun.run.events import StepEvent
from modalrun.run.records import SUCCESSFUL, StepRecord
from modalrun.run.tags import MAX_TAG, fit

if TYPE_CHECKING:
    from modalrun.driver.graph.lease import Lease
    from modalrun.modal_api.sandboxes.step_sandbox import StepSandbox


@dataclass(frozen=True)
class Takeover:
    """Hold what an earlier driver of the run has left.

    Attributes:
        sandboxes: The step sandboxes that run.
        records: ZenML's last record of each step that has one.
    """

    sandboxes: Sequence[StepSandbox | Lease]
    records: Mapping[str, StepRecord]

    @property
    def successful(self) -> set[str]:
        """The steps that have succeeded."""
        return {name for name, record in self.records.items() if record.successful}

    def restore(
        self, steps: Mapping[str, StaticStep], done: Collection[str]
    ) -> Iterator[StepSandbox | Lease]:
        """Restore the steps' attempts, records and running sandboxes; yield superfluous ones."""
        by_tag = {fit(name, MAX_TAG): step for name, step in steps.items()}
        for sandbox in sorted(self.sandboxes, key=lambda sandbox: sandbox.attempt):
            step = by_tag.get(sandbox.step)
            if step is None or step.attempts.name in done:
                continue
            step.attempts.count = sandbox.attempt
            if step.attempts.sandbox is not None:
                # It was given up when the later one was created.
                yield step.attempts.sandbox
                step.attempts.sandbox = None
            step.attempts.sandbox = sandbox
        for name, record in self.records.items():
            if name not in steps:
                continue
            steps[name].recorded = record
            attempts = steps[name].attempts
            attempts.count = max(attempts.count, record.sandboxes)
            adopted = attempts.sandbox
            attempts.failures = record.attempt - 1
            if record.status == "retrying" and (
                adopted is None or adopted.attempt > record.sandboxes
            ):
                # It has failed as well. The end of a sandbox that still runs counts when it comes.
                attempts.failures += 1
            attempts.record = record.id if is_running(record) else None


def finished_steps(
    records: Mapping[str, StepRecord], steps: Collection[str], now: float
) -> Iterator[StepEvent]:
    """Yield the ends of successful steps again, for readers of this driver's output alone.

    `now`, in seconds since the epoch, is the time of a record without an end.
    """
    for name, record in records.items():
        if name not in steps or not record.successful:
            continue
        state = SUCCESSFUL[record.status]
        ran = state == "completed"
        # The sandbox of any other belongs to another run.
        metadata = record.metadata if ran else None
        yield StepEvent(
            name,
            state,
            at=record.ended or now,
            attempt=record.sandboxes if ran else record.attempt,
            restarts=record.sandboxes - record.attempt if ran else 0,
            sandbox=metadata.sandbox_id if metadata is not None else None,
            gpu=metadata.gpu if metadata is not None else None,
            cpu=metadata.cpu if metadata is not None else None,
            memory=metadata.memory if metadata is not None else None,
            began=record.began if ran else None,
        )
