"""Derive the status of a run from ZenML's record and Modal's sandboxes. Pure.

ZenML does not notice that a process has ended: its record alone may say "running" forever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Literal

from modalrun.errors import ConnectionLostError, RunStoppedError
from modalrun.run.contract import EXIT_COMPLETED, EXIT_FAILED, EXIT_TERMINATED
from modalrun.run.events import FINAL, StepEvent
from modalrun.run.failure import has_failed
from modalrun.run.failure_hints import hint_on_end
from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.outcome import (
    ENDED_AS_A_WHOLE,
    LOST,
    PAUSED,
    answer_commands,
    exit_code_and_headline,
    recorded_end,
)
from modalrun.run.records import NOT_RUN, WAITING, RunRecord, StepRecord
from modalrun.run.sandbox_exit import ExitKind, SandboxExit, read_exit

GOES_ON = "A step has failed, so ZenML calls the run 'failed' already. Its other steps go on."
WAITS = "The run is paused, in no sandbox: answer it, unless somebody has, and resume it."

STILL_GOING = ConnectionLostError.exit_code
"""The exit code for an unfinished run (the run may continue)."""

Presence = Literal["running", "ended", "unknown", "not asked"]


@dataclass(frozen=True)
class SandboxState:
    """The state of a run's sandboxes by Modal.

    Attributes:
        sandbox: State of the run sandbox. "unknown": Modal could not be asked, or has no such
            sandbox.
        end: How the run sandbox ended.
        step_sandboxes: The ids of the running step sandboxes; `per_step` mode only.
        problem: Why the state is unknown; a sentence.
        not_found: Whether Modal has no such sandbox.
    """

    sandbox: Presence
    end: SandboxExit | None = None
    step_sandboxes: frozenset[str] = frozenset()
    problem: str | None = None
    not_found: bool = False

    @property
    def exit_code(self) -> int | None:
        """The run sandbox's exit code, if it has ended."""
        return self.end.exit_code if self.end else None


NOT_ASKED = SandboxState("not asked")


@dataclass(frozen=True)
class Note:
    """A remark about a run, and the commands that help."""

    text: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunStatus:
    """A run by everything that is known of it at one moment.

    Attributes:
        steps: All of its steps, parents before children.
        modal: The state of its sandboxes.
        state: ZenML's status of the run, or `LOST`.
        over: Whether nothing more happens to it by itself.
        exit_code: The exit code that `submit` would end with (docs/troubleshooting.md); None where
            the run is not over, or Modal was not asked.
        headline: How it ended, in a sentence; None where it is not over.
        notes: Where ZenML and Modal disagree, and what could not be checked.
        bars: What the progress bars of steps show now, by step; only where the run is watched.
    """

    run: RunRecord
    steps: tuple[StepRecord, ...]
    modal: SandboxState
    state: str
    over: bool
    exit_code: int | None = None
    headline: str | None = None
    notes: tuple[Note, ...] = ()
    bars: Mapping[str, str] = field(default_factory=dict)

    @property
    def presence(self) -> Presence | Literal["waiting"]:
        """State of the run sandbox; "waiting" while Modal has no place for it."""
        queued = self.modal.sandbox == "running" and self.run.waiting
        return "waiting" if queued else self.modal.sandbox

    @property
    def next(self) -> str | None:
        """What to do about a failure that is no step's, where that is known."""
        run, end = self.run, self.modal.end
        if not self.over or self.exit_code == 0 or any(step.next for step in self.failed):
            return None
        if run.next or end is None or run.place is None:
            return run.next
        return hint_on_end(end, run.place.mode, run.place.target)

    def sandbox_of(self, step: StepRecord) -> RunMetadata | StepMetadata | None:
        """Return what is recorded of the sandbox of a step; None where nothing is."""
        run = self.run.metadata
        # Only in a dynamic pipeline can steps run in the sandbox of the driver.
        shared = run is not None and (run.mode == "pipeline" or self.run.dynamic)
        return step.metadata or (run if shared else None)

    @property
    def failed(self) -> list[StepRecord]:
        """The steps that have failed."""
        status = self.run.status
        return [step for step in self.steps if has_failed(step.status, step.failure, status)]


def needs_modal(run: RunRecord, *, with_exit_code: bool) -> bool:
    """Return whether Modal has to be asked for the status.

    ZenML's record of a finished run is final, but does not distinguish an error from a timeout or
    a termination.
    """
    if run.metadata is None:
        return False
    return not run.finished or (with_exit_code and run.status == "failed")


def may_be_resumed(run: RunRecord, end: SandboxExit | None) -> bool:
    """Return whether another driver may take over a run whose run sandbox has ended.

    Args:
        end: Of its run sandbox. A driver that was not killed records the run's end itself.
    """
    going = not run.finished and run.status != "stopping"
    return run.per_step and going and end is not None and end.leaves_steps


def may_be_rerun(run: RunRecord) -> bool:
    """Return whether a run has ended without success, so that the rest of it can be run.

    One that got no sandbox is submitted again: nothing of it can be taken.
    """
    return run.metadata is not None and run.status in {"failed", "stopped"}


def derive_status(run: RunRecord, steps: Sequence[StepRecord], modal: SandboxState) -> RunStatus:
    """Derive a run's status from ZenML's record and Modal's."""
    state, over = run.status, run.finished
    notes: tuple[Note, ...] = ()
    if not run.finished:
        state, over, notes = _unfinished(run, modal)
        if waiting := run.waiting:
            # Until Modal has a place, no other note is true.
            notes = (Note(f"Its submission is {waiting}."),)
        if run.metadata and run.metadata.stop_requested and not over and run.status != "stopping":
            notes = (_stop_requested(steps), *notes)
        elif run.failing and not over and state != LOST:
            notes = (Note(GOES_ON), *notes)
    elif modal.problem:
        notes = (Note(f"How the sandbox ended could not be found out: {modal.problem}"),)
    if run.problem:
        notes = (*notes, Note(run.problem))
    if state == "running" and run.metadata and (waits := run.metadata.step_waits):
        steps = [_waiting(step, waits) for step in steps]
    if not over and state != LOST:
        steps = _with_waiting(run, steps)
    if over and state == LOST:
        # ZenML says "running" for ever.
        steps = [replace(s, status=LOST) if s.status == "running" else s for s in steps]
    status = RunStatus(run, tuple(steps), modal, state, over, notes=notes)
    if not over:
        return status
    exit_code, headline = _end(run, steps, modal)
    return replace(status, exit_code=exit_code, headline=headline)


def _waiting(step: StepRecord, waits: Mapping[str, str]) -> StepRecord:
    """Return the record of a step, with what it waits for if Modal has no place for it yet."""
    if step.finished or step.status == "running" or step.name not in waits:
        return step
    known = step.metadata or StepMetadata("")
    metadata = replace(known, exit_code=None, exit_reason=waits[step.name])
    return replace(step, status="starting", failure=None, metadata=metadata)


def _with_waiting(run: RunRecord, steps: Sequence[StepRecord]) -> list[StepRecord]:
    """Tell the steps that will run from those that won't, since others have failed or a stop."""
    asked_to_stop = run.metadata is not None and run.metadata.stop_requested
    if asked_to_stop or run.starts_nothing or run.status == "stopping":
        return list(steps)
    blocked, found = set[str](), list[StepRecord]()
    for step in steps:
        below = step.status == NOT_RUN and not blocked.isdisjoint(step.upstream)
        if below or step.status == "failed":
            blocked.add(step.name)
        waits = step.status == NOT_RUN and not below
        found.append(replace(step, status=WAITING) if waits else step)
    return found


def _stop_requested(steps: Sequence[StepRecord]) -> Note:
    running = [step.name for step in steps if step.status == "running"]
    finishing = (
        f"running steps may finish: {', '.join(running)}" if running else "nothing new starts"
    )
    return Note(f"It was asked to stop; {finishing}.")


def _unfinished(run: RunRecord, modal: SandboxState) -> tuple[str, bool, tuple[Note, ...]]:
    """Return the state of an unfinished run, whether it is over, and notes."""
    if run.metadata is None:
        return run.status, False, (_without_sandbox(run),)
    if run.status == PAUSED and modal.sandbox != "running":
        return run.status, True, (Note(WAITS, answer_commands(run)),)
    if modal.sandbox == "unknown":
        text = f"Whether the run sandbox still runs could not be checked: {modal.problem}"
        return run.status, False, (Note(text),)
    if modal.sandbox != "ended":
        return run.status, False, ()
    claim = f"ZenML says '{run.zenml_status}', but the run sandbox {how_ended(modal)}"
    # Another driver would only end one that is stopping.
    resumable = run.per_step and run.status != "stopping"
    resume = (f"modalrun resume {run.id}",) if resumable else ()
    if modal.step_sandboxes:
        count = len(modal.step_sandboxes)
        sandboxes = "step sandbox still runs" if count == 1 else "step sandboxes still run"
        text = f"{claim}; {count} {sandboxes}, and no step will follow."
        return LOST, False, (Note(text, (*resume, f"modalrun stop {run.id}")),)
    note = Note(f"{claim}; nothing of it runs any more.", (*resume, f"modalrun reconcile {run.id}"))
    return LOST, True, (note,)


def _without_sandbox(run: RunRecord) -> Note:
    """Return why an unfinished run has no sandbox on record."""
    if run.parent is not None:
        text = f"A child pipeline stops with its parent, in whose sandboxes it runs: {run.parent}."
        answer = answer_commands(run)[:-1] if run.status == PAUSED else ()
        return Note(text, (*answer, f"modalrun status {run.parent}"))
    why = "it is just being submitted, its submission was killed, or modalrun did not start it"
    then = f"'modalrun reconcile --force {run.id}' records its end"
    if run.announced is not None:
        why, then = "it is being submitted", f"'modalrun stop {run.id}' ends it"
    text = f"ZenML says '{run.status}', and no sandbox is recorded with the run: {why}."
    return Note(f"{text} If nothing submits or runs it any more, {then}.")


def how_ended(modal: SandboxState) -> str:
    """Return how a run sandbox has ended, as the verb of a sentence."""
    if modal.end is not None and modal.end.kind is ExitKind.TIMED_OUT:
        return "has reached its timeout"
    if modal.end is not None and modal.end.kind in ENDED_AS_A_WHOLE:
        return ENDED_AS_A_WHOLE[modal.end.kind]
    if modal.end is not None and modal.end.kind.error is RunStoppedError:
        return f"was ended from outside (exit code {modal.exit_code})"
    return f"has ended (exit code {modal.exit_code})"


def _end(
    run: RunRecord, steps: Sequence[StepRecord], modal: SandboxState
) -> tuple[int | None, str]:
    """Return the exit code and the headline of a run that is over."""
    failed = [s.name for s in steps if has_failed(s.status, s.failure, run.status)]
    timeout = run.metadata.timeout if run.metadata else 0
    recorded = {"completed": EXIT_COMPLETED, PAUSED: EXIT_COMPLETED, "stopped": EXIT_TERMINATED}
    known = modal.end or (recorded_end(run.reason) if run.status == "failed" else None)
    end = known or read_exit(recorded.get(run.status, EXIT_FAILED))
    code, headline = exit_code_and_headline(end, run.status, failed, timeout)
    if end.is_infrastructure and may_be_resumed(run, modal.end):
        return RunStoppedError.exit_code, headline
    if run.metadata is None and run.announced and run.announced.exit_code:
        return run.announced.exit_code, "Run failed: its sandbox was not created."
    if known is None and code == EXIT_FAILED and modal.sandbox == "not asked" and run.metadata:
        # Only Modal knows whether a failure was a timeout or a termination.
        return None, headline
    return code, headline


def with_events(status: RunStatus, events: Mapping[str, StepEvent]) -> RunStatus:
    """Update a status by the driver's last event of each step.

    ZenML's record of a step that has ended stays, unless a new attempt has begun since.
    """
    if status.over:
        return status
    return replace(
        status,
        steps=tuple(
            _with_event(step, events[step.name]) if step.name in events else step
            for step in status.steps
        ),
    )


def _with_event(step: StepRecord, event: StepEvent) -> StepRecord:
    at = _utc(event.at)
    recorded = step.metadata or StepMetadata("")
    metadata = replace(
        recorded,
        sandbox_id=event.sandbox or recorded.sandbox_id,
        gpu=event.gpu or recorded.gpu,
        cpu=event.cpu or recorded.cpu,
        memory=event.memory or recorded.memory,
        exit_code=event.exit_code,
        exit_reason=event.capacity_wait.text() if event.capacity_wait else event.reason,
    )
    if step.finished and (event.state in FINAL or step.end is None or step.end >= at):
        kept = step.metadata or metadata
        return replace(step, metadata=replace(kept, exit_reason=kept.exit_reason or event.reason))
    state = event.state
    if state == "running" and not event.begun and step.status != "running":
        # The sandbox exists; ZenML records when the step begins.
        state = "starting"
    return replace(
        step,
        status=state,
        attempt=max(event.tries, step.attempt),
        start=None if state == "starting" and event.tries > step.attempt else _start(step, event),
        end=at if event.state in FINAL else None,
        failure=None,
        metadata=metadata,
        since=at,
    )


def _start(step: StepRecord, event: StepEvent) -> datetime | None:
    """Return when the attempt of an event began; a recorded start of the same attempt wins."""
    began = _utc(event.began or event.at) if event.begun else None
    if event.tries > step.attempt:
        return began or step.start
    return step.start or began


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
