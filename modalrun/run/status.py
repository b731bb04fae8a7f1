"""What ZenML records of a run beside what Modal knows of its sandboxes: what is true. Pure.

ZenML never notices that a process is gone, so its record alone may say `running` for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Literal

from modalrun.errors import ConnectionLostError, RunStoppedError
from modalrun.run.contract import EXIT_COMPLETED, EXIT_FAILED, EXIT_TERMINATED
from modalrun.run.events import FINAL, StepEvent
from modalrun.run.metadata import StepMetadata
from modalrun.run.outcome import PAUSED, answers, verdict
from modalrun.run.records import KnownRun, KnownStep
from modalrun.run.sandbox_exit import ExitKind, SandboxExit, read_exit

LOST = "lost"
"""The state of a run that ZenML records as going on, and whose sandbox has ended."""

WAITS = "The run waits for somebody's answer, in no sandbox."

STILL_GOING = ConnectionLostError.exit_code
"""The exit code for a run that is not over: design.md's "the run may still be going"."""

Presence = Literal["running", "ended", "unknown", "not asked"]


@dataclass(frozen=True)
class ModalView:
    """What Modal knows of a run's sandboxes.

    Attributes:
        sandbox: Of the run sandbox. "unknown": Modal could not be asked, or doesn't know it.
        end: How the run sandbox ended, where it has.
        step_sandboxes: The ids of the step sandboxes that run; `per_step` mode only.
        problem: Why it is unknown; a sentence.
        unheard_of: Whether Modal was asked and doesn't know the run sandbox.
    """

    sandbox: Presence
    end: SandboxExit | None = None
    step_sandboxes: frozenset[str] = frozenset()
    problem: str | None = None
    unheard_of: bool = False

    @property
    def exit_code(self) -> int | None:
        """The run sandbox's exit code, if it has ended."""
        return self.end.exit_code if self.end else None


NOT_ASKED = ModalView("not asked")


@dataclass(frozen=True)
class Note:
    """Something that whoever looks should know.

    Attributes:
        text: What is the case; a sentence.
        commands: What can be done about it.
    """

    text: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunStatus:
    """A run, from everything that is known of it at one moment.

    Attributes:
        run: ZenML's record.
        steps: All of its steps, parents before children.
        modal: What Modal says.
        state: ZenML's word for the run's state, or `LOST`.
        over: Whether nothing will happen to it any more by itself.
        exit_code: What `submit` would have ended with (design.md, section 5); None where it is
            not over, or where only Modal knows and was not asked.
        headline: How it ended, in a sentence; None where it is not over.
        notes: Where ZenML and Modal disagree, and what could not be found out.
        url: The run's page on ZenML's dashboard, where there is one.
    """

    run: KnownRun
    steps: tuple[KnownStep, ...]
    modal: ModalView
    state: str
    over: bool
    exit_code: int | None = None
    headline: str | None = None
    notes: tuple[Note, ...] = ()
    url: str | None = None


def needs_modal(run: KnownRun, *, exit_wanted: bool) -> bool:
    """Whether Modal has to be asked to know what is true.

    ZenML's record of a finished run is final. What it doesn't say is how one that failed ended:
    by an error, by its timeout or by somebody who terminated the sandbox.
    """
    if run.facts is None:
        return False
    return not run.finished or (exit_wanted and run.status == "failed")


def judge(
    run: KnownRun, steps: Sequence[KnownStep], modal: ModalView, *, url: str | None = None
) -> RunStatus:
    """Put ZenML's record and Modal's word together."""
    exit_code, headline = _end(run, steps, modal)
    state, over = run.status, run.finished
    notes: tuple[Note, ...] = ()
    if not run.finished:
        state, over, notes = _unfinished(run, modal)
        if run.facts and run.facts.stop_requested and not over and run.status != "stopping":
            notes = (_asked_to_stop(steps), *notes)
    if run.finished and modal.problem:
        notes = (Note(f"How the sandbox ended could not be found out: {modal.problem}"),)
    return RunStatus(
        run=run,
        steps=tuple(steps),
        modal=modal,
        state=state,
        over=over,
        exit_code=exit_code if over else None,
        headline=headline if over else None,
        notes=notes,
        url=url,
    )


def _asked_to_stop(steps: Sequence[KnownStep]) -> Note:
    running = [step.name for step in steps if step.status == "running"]
    finishing = f"what runs may finish: {', '.join(running)}" if running else "nothing new starts"
    return Note(f"It was asked to stop; {finishing}.")


def _unfinished(run: KnownRun, modal: ModalView) -> tuple[str, bool, tuple[Note, ...]]:
    if run.facts is None:
        text = (
            f"ZenML says '{run.status}', and no sandbox is recorded with the run: either it is"
            " just being submitted, or modalrun did not start it."
        )
        return run.status, False, (Note(text),)
    if run.status == PAUSED and modal.sandbox != "running":
        return run.status, True, (Note(WAITS, answers(run.id, run.facts.mode)),)
    if modal.sandbox == "unknown":
        text = f"Whether the run sandbox still runs could not be checked: {modal.problem}"
        return run.status, False, (Note(text),)
    if modal.sandbox != "ended":
        return run.status, False, ()
    claim = f"ZenML says '{run.status}', but the run sandbox {_ended(modal)}"
    reconcile = f"modalrun reconcile {run.id}"
    if modal.step_sandboxes:
        count = len(modal.step_sandboxes)
        sandboxes = "step sandbox still runs" if count == 1 else "step sandboxes still run"
        text = f"{claim}; {count} {sandboxes}, and no step will follow."
        return LOST, False, (Note(text, (f"modalrun resume {run.id}", f"modalrun stop {run.id}")),)
    text = f"{claim}; nothing of it runs any more."
    again = (f"modalrun resume {run.id}",) if run.facts.mode == "per_step" else ()
    return LOST, True, (Note(text, (*again, reconcile)),)


def _ended(modal: ModalView) -> str:
    if modal.end is not None and modal.end.kind is ExitKind.TIMED_OUT:
        return "has reached its timeout"
    if modal.end is not None and modal.end.kind.error is RunStoppedError:
        return f"was ended from outside (exit code {modal.exit_code})"
    return f"has ended (exit code {modal.exit_code})"


def _end(
    run: KnownRun, steps: Sequence[KnownStep], modal: ModalView
) -> tuple[int | None, str | None]:
    failed = [step.name for step in steps if step.status == "failed"]
    timeout = run.facts.timeout if run.facts else 0
    if modal.end is not None:
        return verdict(modal.end, run.status, failed, timeout)
    if run.status in {"completed", PAUSED}:
        return verdict(read_exit(EXIT_COMPLETED), run.status, failed, timeout)
    if run.status == "stopped":
        return verdict(read_exit(EXIT_TERMINATED), run.status, failed, timeout)
    code, headline = verdict(read_exit(EXIT_FAILED), run.status, failed, timeout)
    # Without Modal's word, a failure may as well have been a timeout or a termination.
    return (None if modal.sandbox == "not asked" and run.facts else code), headline


def with_events(view: RunStatus, events: Mapping[str, StepEvent]) -> RunStatus:
    """A view brought up to date with the driver's last word on each step.

    ZenML's record of a step that has ended stays, unless the driver has begun a new attempt since.
    """
    if not events or view.over:
        return view
    return replace(
        view,
        steps=tuple(
            _with_event(step, events[step.name]) if step.name in events else step
            for step in view.steps
        ),
    )


_ENDED = frozenset({"completed", "cached", "failed", "stopped", "skipped", "retried"})


def _with_event(step: KnownStep, event: StepEvent) -> KnownStep:
    at = _moment(event.at)
    held = step.facts
    facts = StepMetadata(
        sandbox_id=event.sandbox or (held.sandbox_id if held else ""),
        gpu=event.gpu or (held.gpu if held else None),
        cpu=event.cpu or (held.cpu if held else None),
        memory=event.memory or (held.memory if held else None),
        regions=held.regions if held else None,
        exit_code=event.exit_code,
        exit_reason=event.reason,
        infrastructure_retries=held.infrastructure_retries if held else None,
    )
    state = event.state
    if state == "running" and not event.begun:
        # Its sandbox is there; that the step has begun, ZenML says.
        state = "running" if step.status == "running" else "starting"
    recorded_end = step.status in _ENDED and (
        event.state in FINAL or step.end is None or step.end >= at
    )
    if recorded_end:
        return replace(step, facts=held or facts, reason=step.reason or event.reason)
    return replace(
        step,
        status=state,
        attempt=max(event.attempt, step.attempt),
        start=_start(step, event, state),
        end=at if event.state in FINAL else None,
        reason=event.reason,
        facts=facts,
        since=at,
    )


def _start(step: KnownStep, event: StepEvent, state: str) -> datetime | None:
    """When what an event is about has begun; None where it has not."""
    if state == "starting":
        return None
    told = _moment(event.began or event.at) if event.begun else None
    return (told if event.attempt > step.attempt else None) or step.start or told


def _moment(seconds: float) -> datetime:
    """A moment as ZenML gives it: in UTC, without a zone."""
    return datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None)
