"""How each step of a run stands, from what the run says of itself. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from modalrun.run.events import FINAL, StepEvent


@dataclass
class StepProgress:
    """One step.

    Attributes:
        step: Its invocation id.
        state: `StepState`, or "waiting" before the first word of it.
        started: When its present attempt began, as ZenML records it; in seconds since the epoch.
        ended: When it came to its final state.
        attempt: Which sandbox, or which try, this is, from 1.
        sandbox: Its sandbox, where it has one of its own.
        gpu: That sandbox's GPU.
        exit_code: That sandbox's, once it has ended.
        reason: Why it ended as it did.
    """

    step: str
    state: str = "waiting"
    started: float | None = None
    ended: float | None = None
    attempt: int = 1
    sandbox: str | None = None
    gpu: str | None = None
    exit_code: int | None = None
    reason: str | None = None

    @property
    def final(self) -> bool:
        """Whether nothing more will come of this step."""
        return self.state in FINAL

    def seconds(self, now: float) -> float | None:
        """How long it has run, or ran; None where it has not."""
        if self.started is None:
            return None
        return max(0.0, (self.ended or now) - self.started)


@dataclass
class Usage:
    """One sandbox of a step and its time, for what it costs.

    Attributes:
        step: The step.
        gpu: As Modal writes it; None for a CPU sandbox.
        started: In seconds since the epoch.
        ended: None while it runs.
    """

    step: str
    gpu: str | None
    started: float
    ended: float | None = None


class RunProgress:
    """All steps of a run.

    Attributes:
        rows: By step, in the graph's order.
        usage: The steps' own sandboxes, by their id.
        wasted: Seconds for which sandboxes that were created early have waited.
    """

    def __init__(self, steps: Iterable[str]) -> None:
        self.rows = {step: StepProgress(step) for step in steps}
        self.usage: dict[str, Usage] = {}
        self.wasted = 0.0

    def apply(self, event: StepEvent) -> None:
        """Note what an event says; a driver that takes over may say it again."""
        self._note_usage(event)
        row = self.rows.setdefault(event.step, StepProgress(event.step))
        if event.attempt < row.attempt:
            return
        if event.attempt > row.attempt:
            row.sandbox = row.gpu = None
        again = row.state == "running" and event.attempt == row.attempt
        state = event.state
        if state == "running" and not event.begun and not again:
            # Its sandbox is there, and has yet to start Python and ZenML.
            state = "starting"
        row.attempt = event.attempt
        row.sandbox = event.sandbox or row.sandbox
        row.gpu = event.gpu or row.gpu
        row.exit_code, row.reason = event.exit_code, event.reason
        if state == "running" and not again:
            row.started, row.ended = event.began or event.at, None
        if row.started is None:
            row.started = event.began
        if event.state in FINAL and row.ended is None:
            row.ended = event.at
        row.state = state

    def _note_usage(self, event: StepEvent) -> None:
        if event.wasted and not (event.state in FINAL and event.sandbox is None):
            self.wasted += event.wasted
        if event.sandbox is None:
            return
        unused = event.state == "waiting" and event.wasted is not None
        if event.state in {"waiting", "starting", "running"} and not unused:
            used = self.usage.setdefault(
                event.sandbox, Usage(event.step, event.gpu, event.at - (event.wasted or 0.0))
            )
            used.gpu = event.gpu or used.gpu
        elif event.sandbox in self.usage and self.usage[event.sandbox].ended is None:
            self.usage[event.sandbox].ended = event.at

    def counts(self) -> Counter[str]:
        """How many steps there are in each state."""
        return Counter(row.state for row in self.rows.values())

    def chosen(self, limit: int) -> list[StepProgress]:
        """The rows that matter most, at most `limit`, in the graph's order.

        What runs, or is about to, comes first, then what failed, then what ended last, then what
        has not begun.
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
