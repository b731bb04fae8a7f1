"""A run and its steps as ZenML records them, and how a RUN argument selects a run. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

from modalrun.errors import NotFoundError, UsageError
from modalrun.run.artifacts import Artifact
from modalrun.run.events import StepState
from modalrun.run.failure import Failure
from modalrun.run.failure_hints import hint_on_failure
from modalrun.run.metadata import Announced, RunMetadata, StepMetadata
from modalrun.run.run_plan import Target
from modalrun.run.usage import StepUsage
from modalrun.util.text import checked_utf8

LATEST = "latest"
MIN_PREFIX = 4
"""Hex digits that a prefix of a run id needs at least."""

NOT_RUN = "not run"
"""The status of a step that ZenML has no record of, in a run that is over."""

WAITING = "waiting"
"""The same while the run goes on."""

UNBEGUN = frozenset({NOT_RUN, WAITING})

_SUCCESSFUL: tuple[StepState, ...] = ("completed", "cached", "skipped")
SUCCESSFUL: dict[str, StepState] = {state: state for state in _SUCCESSFUL}
FINISHED = SUCCESSFUL.keys() | {"failed", "retried", "stopped", "cancelled"}
"""ZenML's final statuses (`zenml/enums.py:83`, 0.98.0). "retrying" is none: an attempt follows."""

STATES = (
    *("initializing", "provisioning", "running", "stopping", "paused"),
    *("completed", "failed", "stopped"),
)
"""ZenML's statuses of a run to filter by (`ExecutionStatus`, 0.98.0)."""

_SHOWN = 10
_DIGITS = re.compile(r"[0-9a-f]{4,32}")


@dataclass(frozen=True)
class Named:
    """Identify the stack of a run, or the user or service account that has submitted it."""

    id: str
    name: str


@dataclass(frozen=True)
class App:
    """Identify a Modal app, in an environment; None for the default one."""

    app: str
    environment: str | None = None


@dataclass(frozen=True)
class DeploymentRecord:
    """Identify the deployment of a run, as far as it was not deleted.

    Attributes:
        id: ZenML's id of the snapshot.
        stack: The id of its stack; None where that was deleted.
        environment: What ZenML stores of the process that compiled it.
        pipeline: Its pipeline as `module:function`; None where that is not known.
    """

    id: str
    stack: str | None = None
    environment: Mapping[str, Any] = field(default_factory=dict, repr=False)
    pipeline: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """A run as ZenML records it. All times are in UTC.

    Attributes:
        status: ZenML's status; "running" of a run that is `failing`.
        created: When its record was created.
        reason: ZenML's reason for the status.
        metadata: What modalrun stored with it; None for a run that modalrun did not start, or
            that has no sandbox yet.
        announced: Where its sandbox is, will be or would have been.
        stack: Its stack; None where that was deleted.
        user: Who submitted it; None where that was deleted.
        url: Its page on ZenML's dashboard, where there is one.
        wrong_metadata: The keys of values that modalrun can't have stored; they are not used. Only
            "all" if ZenML can't decode them.
        failing: Whether ZenML calls the run failed because a step has failed, while other steps go
            on (`pipeline_run_schemas.py:1318`, 0.98.0). At its end modalrun stores a reason.
        starts_nothing: Whether it is failing, and its execution mode lets no more steps begin.
        dynamic: Whether its pipeline is dynamic.
        parent: The id of the run whose function called its pipeline; None for most runs.
        root: The id of the topmost of these, whose sandboxes it shares.
        children: The runs of its child pipelines and of theirs by what precedes `/STEP` in the
            labels of their steps ("outer/inner"), where its steps were read too.
    """

    id: str
    name: str
    pipeline: str
    status: str
    created: datetime
    start: datetime | None = None
    end: datetime | None = None
    reason: str | None = None
    metadata: RunMetadata | None = None
    announced: Announced | None = None
    stack: Named | None = None
    user: Named | None = None
    url: str | None = None
    wrong_metadata: tuple[str, ...] = ()
    failing: bool = False
    starts_nothing: bool = False
    dynamic: bool = False
    parent: str | None = None
    root: str | None = None
    children: Mapping[str, RunRecord] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the status is final."""
        return self.status in FINISHED

    def latest(self, now: datetime) -> datetime:
        """Return its end; without one the present, but no later than its sandbox's timeout."""
        if self.end is not None or self.metadata is None or not self.metadata.timeout:
            return self.end or now
        began = self.metadata.created or (self.start or self.created).timestamp()
        until = min(now.timestamp(), began + self.metadata.timeout)
        return datetime.fromtimestamp(until, timezone.utc)

    @property
    def zenml_status(self) -> str:
        """The status in ZenML, which changes no more once it is final."""
        return "failed" if self.failing else self.status

    @property
    def place(self) -> RunMetadata | Announced | None:
        """Its target, mode and app; None for a run that modalrun did not start."""
        return self.metadata or self.announced

    @property
    def per_step(self) -> bool:
        """Whether its steps run in sandboxes of their own."""
        return self.place is not None and self.place.mode == "per_step"

    @property
    def waiting(self) -> str | None:
        """What its submission waits for, while Modal has no place for its sandbox."""
        announced = self.announced if self.status == "initializing" else None
        return (announced and announced.waiting) or None

    @property
    def next(self) -> str | None:
        """What to do about its failure, where that is known; it may be another step's."""
        hints = (self.metadata and self.metadata.hints) or {}
        told = [hint for step, hint in hints.items() if f"`{step}`" in (self.reason or "")]
        target = self.place.target if self.place is not None else None
        told += filter(None, [hint_on_failure(self.reason, target)])
        told += [f"step `{step}`: {hint}" for step, hint in hints.items()]
        if self.metadata is None and self.announced and self.announced.exit_code:
            told.append("nothing of it ran: submit it again once the reason is gone")
        return told[0] if told else None

    @property
    def problem(self) -> str | None:
        """A sentence about wrong values in its metadata; None if there are none."""
        names = ", ".join(self.wrong_metadata)
        text = f"Values of its metadata in ZenML are wrong and taken as unknown: {names}."
        return text if names else None


@dataclass(frozen=True)
class StepRecord:
    """The last attempt of a step as ZenML records it. All times are in UTC.

    Attributes:
        name: Invocation id.
        status: ZenML's status, `NOT_RUN` or `WAITING`.
        attempt: Number of the attempt, from 1; infrastructure retries don't count.
        start: When the attempt started.
        failure: Why it has failed, or was stopped.
        metadata: What modalrun stored with it, in `per_step` mode.
        since: When it reached this status, where that is neither its start nor its end.
        id: ZenML's step run id; empty where there is no record.
        hint: What its submission found out that helps.
        target: Where it runs, where all steps of its run were read.
        upstream: The names of the steps that it waits for, as far as they were asked for.
        usage: What it has used, where its metadata were read and it was measured.
        outputs: What it has made, where steps were listed.
    """

    name: str
    status: str
    attempt: int = 1
    start: datetime | None = None
    end: datetime | None = None
    failure: Failure | None = None
    metadata: StepMetadata | None = None
    since: datetime | None = None
    id: str = ""
    hint: str | None = None
    target: Target | None = None
    upstream: tuple[str, ...] = ()
    usage: StepUsage | None = field(default=None, repr=False)
    outputs: tuple[Artifact, ...] = field(default=(), repr=False)

    @property
    def sandboxes(self) -> int:
        """How many sandboxes it has had, as far as recorded; at least one."""
        restarts = self.metadata.infrastructure_retries if self.metadata is not None else None
        # A restart has a sandbox of its own, and so a name, but no record.
        return self.attempt + (restarts or 0)

    @property
    def exit_code(self) -> int | None:
        """The exit code of its process, if that has died, else of its own sandbox.

        None if it has completed: what is recorded then is of an earlier sandbox.
        """
        if self.successful:
            return None
        died = self.failure.exit_code if self.failure is not None else None
        recorded = self.metadata.exit_code if self.metadata is not None else None
        return recorded if died is None else died

    @property
    def reason(self) -> str | None:
        """Why it ended, or why it is not running yet; in one line.

        Of a completed step: why an earlier sandbox of it was lost.
        """
        if self.failure is not None:
            return str(self.failure)
        return self.metadata.exit_reason if self.metadata is not None else None

    @property
    def next(self) -> str | None:
        """What to do about its failure, where that is known."""
        return self.hint or hint_on_failure(self.reason, self.target)

    @property
    def successful(self) -> bool:
        """Whether the step is done."""
        return self.status in SUCCESSFUL

    @property
    def finished(self) -> bool:
        """Whether the status is final."""
        return self.status in FINISHED

    @property
    def began(self) -> float | None:
        """The start in seconds since the epoch, as events give times."""
        return self.start.timestamp() if self.start else None

    @property
    def ended(self) -> float | None:
        """The end in seconds since the epoch."""
        return self.end.timestamp() if self.end else None


def run_argument(text: str | None, *, interactive: bool) -> str:
    """Return the RUN argument of a command; on a terminal it defaults to the latest run.

    Raises:
        UsageError: It is not UTF-8 text. Or it is missing and there is no terminal: in a script,
            the latest run may be another one by then.
    """
    if text is not None and text.strip():
        return checked_utf8(text.strip(), "RUN")
    if text is None and interactive:
        return LATEST
    raise UsageError(
        "RUN is missing: which run?",
        hint=f"Give a run id, the beginning of one, a run's name, or '{LATEST}'.",
    )


def id_prefix(text: str) -> str | None:
    """Return the hex digits of a run id or of a prefix of one; None for any other text."""
    text = text.lower()
    digits = text.replace("-", "")
    if not _DIGITS.fullmatch(digits):
        return None
    whole = str(UUID(digits.ljust(32, "0")))
    return digits if text == digits or whole.startswith(text) else None


def select(text: str, matches: Sequence[RunRecord], recent: Iterable[RunRecord] = ()) -> RunRecord:
    """Select the run with this id, else with this name, else with an id that starts like this.

    Args:
        text: RUN as it was given.
        matches: The runs that match it in any of these ways.
        recent: Other runs, from which the error suggests the nearest.

    Raises:
        NotFoundError: It matches no run or several; the message lists the candidates.
    """
    digits = id_prefix(text)
    hexes = {run.id: run.id.replace("-", "") for run in matches}
    for found in (
        [run for run in matches if hexes[run.id] == digits],
        [run for run in matches if run.name == text],
        [run for run in matches if digits and hexes[run.id].startswith(digits)],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise NotFoundError(
                f"'{text}' is the beginning of {len(found)} run ids:\n{_listed(found)}",
                hint="Give more of the id, or the run's name.",
            )
    others = list(recent)
    near = _nearest(text, others)
    kind, shown = ("nearest", near) if near else ("newest", others[:_SHOWN])
    raise NotFoundError(
        f"There is no run '{text}'." + (f" The {kind} are:\n{_listed(shown)}" if shown else ""),
        hint="'modalrun list' shows the runs of the active project; RUN is a run id, the first"
        f" {MIN_PREFIX} or more digits of one, a run's name, or '{LATEST}'.",
    )


def _nearest(text: str, runs: list[RunRecord]) -> list[RunRecord]:
    if id_prefix(text):
        starts = {run.id[: len(text)]: None for run in runs}
        close = difflib.get_close_matches(text.lower(), list(starts))
        found = [run for run in runs if run.id[: len(text)] in close]
    else:
        names = {run.name: run for run in runs}
        found = [run for name, run in names.items() if text.lower() in name.lower()]
        close = difflib.get_close_matches(text, list(names), cutoff=0.5)
        found = found or [names[name] for name in close]
    return found[:_SHOWN]


def _listed(runs: Sequence[RunRecord]) -> str:
    lines = [f"{run.id}  {run.status:<12}  {run.name}" for run in runs[:_SHOWN]]
    if len(runs) > _SHOWN:
        lines.append(f"and {len(runs) - _SHOWN} more")
    return "\n".join(lines)


@dataclass(frozen=True)
class CreatedRun:
    """A placeholder run, with what its run sandbox needs.

    Attributes:
        url: Its page on ZenML's dashboard, where there is one.
        environment: Variables with ZenML's credentials: a Modal secret, which is never printed.
        done: The steps that are recorded already and don't run, each with its state: in ZenML's
            cache, or taken from an earlier run.
        finished: Whether all steps are done: the run has completed and needs no sandbox.
        snapshot_id: The id of its deployment in ZenML, where known.
    """

    id: str
    name: str
    url: str | None
    environment: Mapping[str, str] = field(repr=False)
    done: Mapping[str, StepState] = field(default_factory=dict)
    finished: bool = False
    snapshot_id: str | None = None


@dataclass
class Placeholder:
    """What is known of a run while ZenML creates its record.

    Attributes:
        run_id: Its id, as soon as it exists.
        unanswered: Whether ZenML was asked to create it and has not answered.
    """

    run_id: str | None = None
    unanswered: bool = False
