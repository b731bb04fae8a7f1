"""Derive when the phases of a run and of its steps began and ended. Pure.

All moments are in seconds since the epoch. Different machines have recorded them, so a phase that
would end before it begins is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import pairwise
from typing import Literal, Protocol, get_args

from modalrun.run.records import UNBEGUN, RunRecord, StepRecord

Phase = Literal["waiting", "image", "lost", "sandbox start", "import", "run", "retry"]

PHASES: tuple[Phase, ...] = get_args(Phase)

SHORTEST = 0.05
"""Seconds of a phase; a shorter one counts for the next."""

_FAILED = frozenset({"failed", "retrying", "retried"})
_TAKEN = frozenset({"cached", "skipped"})


class Status(Protocol):
    """What a timeline needs of a `RunStatus`, which knows the outcome of a run, and so this."""

    @property
    def run(self) -> RunRecord: ...
    @property
    def steps(self) -> Sequence[StepRecord]: ...
    @property
    def over(self) -> bool: ...


@dataclass(frozen=True)
class Span:
    """A phase of one attempt.

    Attributes:
        phase: "waiting": the steps before have ended, and the step's sandbox is not asked for yet.
            "image": the run is submitted; its images are built. "sandbox start": until the first
            process in the sandbox, with the wait for a place in Modal; of a run sandbox until a
            step is asked for. "import": until the step begins. "retry": between two attempts.
            "lost": what the sandboxes took that were lost, until the next one is asked for.
        end: When it ended; the end of the timeline while it goes on.
        attempt: Number of the attempt, from 1.
        open: Whether it goes on.
        failed: Whether the attempt has failed.
    """

    phase: Phase
    begin: float
    end: float
    attempt: int = 1
    open: bool = False
    failed: bool = False

    @property
    def kind(self) -> Phase | Literal["failed"]:
        """Its phase; "failed" for the run of an attempt that has failed."""
        return "failed" if self.failed and self.phase == "run" else self.phase


@dataclass(frozen=True)
class StepTimeline:
    """The phases of one step.

    Attributes:
        step: The step as its run's status shows it.
        attempts: All of its records, oldest first.
        spans: Its phases in order; none for a step that has not run, or whose result was taken.
    """

    step: StepRecord
    attempts: tuple[StepRecord, ...] = ()
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Timeline:
    """The phases of a run.

    Attributes:
        begin: When it started; until then, when its record was created.
        end: When it ended; the present for a run that goes on.
        over: Whether nothing more happens.
        run: The phases of its run sandbox; none if it never had one.
        steps: Parents before children.
    """

    begin: float
    end: float
    over: bool
    run: tuple[Span, ...] = ()
    steps: tuple[StepTimeline, ...] = ()


def timeline_of(view: Status, attempts: Iterable[StepRecord], now: float) -> Timeline:
    """Derive the timeline of a run.

    Args:
        attempts: All records of its steps, in any order.
        now: The present, at which phases without an end are cut off.
    """
    run, records = view.run, dict[str, list[StepRecord]]()
    for one in sorted(attempts, key=lambda one: one.attempt):
        records.setdefault(one.name, []).append(one)
    created = (run.start or run.created).timestamp()
    latest = run.latest(datetime.fromtimestamp(now, timezone.utc)).timestamp()
    ran = [one for found in records.values() for one in found if one.status not in _TAKEN]
    if view.over and run.end is None and ran and all(one.ended for one in ran):
        # It is paused, or has lost its driver: nothing has gone on since.
        latest = max(one.ended or 0.0 for one in ran)
    begins = [begin for one in ran if (begin := _asked(one)) is not None]
    first = min(begins, default=None)
    ends = {name: found[-1].ended for name, found in records.items()}
    done = {step.name for step in view.steps if step.successful}
    steps = []
    for shown in view.steps:
        found = records.get(shown.name, [])
        # Of a dynamic pipeline, only the records of attempts say what a step waits for.
        upstream = shown.upstream or (found[-1].upstream if found else ())
        step = replace(shown, upstream=upstream)
        before = [first, *(ends.get(name) for name in step.upstream)]
        ready = max([end for end in before if end is not None], default=None)
        waits = not view.over and first is not None and done.issuperset(step.upstream)
        spans = _Spans(latest, live=not view.over).of(step, found, ready, waits=waits)
        steps.append(StepTimeline(step, tuple(found), spans))
    end = max([latest, *(span.end for step in steps for span in step.spans)])
    signs = [*begins, *(one.ended or latest for one in ran)]
    spans = _of_run(view, created, begins, signs, latest)
    return Timeline(created, max(created, end), view.over, spans, tuple(steps))


def levels(steps: Sequence[StepRecord]) -> dict[str, int]:
    """Return how many steps there are at most on a way to each step of a graph.

    Args:
        steps: Parents before children.
    """
    found: dict[str, int] = {}
    for step in steps:
        found[step.name] = max(
            (found[name] + 1 for name in step.upstream if name in found), default=0
        )
    return found


def _asked(one: StepRecord) -> float | None:
    """Return when an attempt was asked for: its first sandbox, or else its begin."""
    return _lost(one) or (one.metadata and one.metadata.requested) or one.began


def _lost(one: StepRecord) -> float | None:
    """Return when the first sandbox of an attempt was asked for, if it was lost.

    It may have been lost before it stored that: then the attempt's begin is known.
    """
    known = one.metadata
    if known is None or known.requested is None:
        return None
    before = one.began if known.infrastructure_retries else None
    return known.lost or (before if before is not None and before < known.requested else None)


def _of_run(
    view: Status, created: float, begins: Sequence[float], signs: Sequence[float], latest: float
) -> tuple[Span, ...]:
    """Return the phases of a run's sandboxes.

    Nobody records when a sandbox ends without the run: it is known to have run until the last sign.

    Args:
        begins: When attempts of steps were asked for.
        signs: Those moments, and when the attempts ended.
    """
    metadata = view.run.metadata
    if metadata is None:
        return ()
    spans = _Spans(latest, live=not view.over, cursor=created)
    first = min(begins, default=None)
    started = first if first is not None else latest
    # A run that was resumed has a newer sandbox than its first steps.
    if metadata.requested is not None and metadata.requested <= started:
        spans.add("image", metadata.requested)
    spans.add("sandbox start", first)
    if first is not None:
        for resumed, until in pairwise([*(metadata.resumes or ()), latest]):
            spans.add("run", max((one for one in signs if one <= resumed), default=resumed))
            spans.skip(resumed)
            if after := [one for one in begins if resumed < one <= until]:
                spans.add("sandbox start", min(after))
        left = view.over and view.run.end is None
        spans.add("run", max(signs) if left else None if view.run.end is None else latest)
    return tuple(spans.found)


class _Spans:
    """Collect phases, each of which begins where the one before ends."""

    def __init__(self, latest: float, *, live: bool, cursor: float = 0.0) -> None:
        self.found: list[Span] = []
        self._latest = latest
        self._live = live
        self._cursor = cursor

    def add(
        self, phase: Phase, end: float | None, *, attempt: int = 1, failed: bool = False
    ) -> None:
        """Add a phase; `end` is None while it goes on."""
        until = self._latest if end is None else end
        if until - self._cursor > (0.0 if phase == "run" else SHORTEST):
            goes_on = end is None and self._live
            self.found.append(Span(phase, self._cursor, until, attempt, goes_on, failed))
            self._cursor = until

    def skip(self, until: float) -> None:
        """Leave out a time of which nothing is known."""
        self._cursor = max(self._cursor, until)

    def of(
        self, step: StepRecord, attempts: Sequence[StepRecord], ready: float | None, *, waits: bool
    ) -> tuple[Span, ...]:
        """Return the phases of a step.

        Args:
            step: The step as its run's status shows it.
            ready: When the steps before it had ended.
            waits: Whether it could run now.
        """
        if step.status in _TAKEN:
            return ()
        for one in attempts:
            self._attempt(one, ready)
        last = attempts[-1].attempt if attempts else 0
        if waits and (step.status in UNBEGUN or step.status in {"starting", "retrying"}):
            self._cursor = self._cursor or ready or self._latest
            asked: Phase = "sandbox start" if step.status == "starting" else "waiting"
            self.add("retry" if last else asked, None, attempt=last + 1)
        return tuple(self.found)

    def _attempt(self, one: StepRecord, ready: float | None) -> None:
        asked, number = _asked(one), one.attempt
        if asked is None:
            return
        known = one.metadata
        before: Phase = "retry" if self.found else "waiting"
        self._cursor = self._cursor or min(asked, asked if ready is None else ready)
        self.add(before, asked, attempt=number)
        if known is not None and _lost(one):
            self.add("lost", known.requested, attempt=number)
        if known is not None and known.started is not None:
            self.add("sandbox start", known.started, attempt=number)
        begun = known.begun if known is not None else None
        self.add("import", begun or one.began, attempt=number)
        self.add("run", one.ended, attempt=number, failed=one.status in _FAILED)
