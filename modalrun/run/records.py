"""Runs that exist, as modalrun sees them, and which of them somebody means. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from modalrun.errors import NotFoundError, UsageError
from modalrun.run.metadata import RunMetadata, StepMetadata

LATEST = "latest"
MIN_PREFIX = 4
"""Hex digits that the beginning of a run id needs to be taken for one."""

_SHOWN = 10
_DIGITS = re.compile(r"[0-9a-f]{4,32}")


@dataclass(frozen=True)
class KnownStack:
    """A stack as ZenML records it.

    Attributes:
        id: ZenML's id.
        name: Its name.
    """

    id: str
    name: str


@dataclass(frozen=True)
class KnownRun:
    """A run as ZenML records it.

    Attributes:
        id: ZenML's run id.
        name: Its name.
        pipeline: The name of its pipeline.
        status: ZenML's word for its state.
        finished: Whether that state is final.
        created: When its record was made (UTC).
        start: When it started (UTC), where it has.
        end: When it ended (UTC), where it has.
        reason: Why it is in that state, where somebody said so.
        facts: What modalrun stored with it; None for a run that it didn't start, or whose
            submission has not come to that yet.
        stack: The stack that it runs on; None where ZenML has that no longer.
    """

    id: str
    name: str
    pipeline: str
    status: str
    finished: bool
    created: datetime
    start: datetime | None = None
    end: datetime | None = None
    reason: str | None = None
    facts: RunMetadata | None = None
    stack: KnownStack | None = None


@dataclass(frozen=True)
class KnownStep:
    """The last attempt of a step as ZenML records it.

    Attributes:
        name: Invocation id.
        status: ZenML's word; "not run" for a step that ZenML has no record of.
        attempt: Which try this was, from 1.
        start: When it started (UTC), where it did.
        end: When it ended (UTC), where it has.
        reason: Why it failed, where it has; the last line of its exception.
        facts: What modalrun stored with it, in `per_step` mode.
        since: When it came to this state (UTC), where that is neither its start nor its end.
    """

    name: str
    status: str
    attempt: int = 1
    start: datetime | None = None
    end: datetime | None = None
    reason: str | None = None
    facts: StepMetadata | None = None
    since: datetime | None = None


def wanted(text: str | None, *, interactive: bool) -> str:
    """What a command's RUN means; left out on a terminal, the latest run.

    Raises:
        UsageError: It is left out and there is no terminal, where the latest run may be somebody
            else's by the time the command gets to it.
    """
    if text is not None and text.strip():
        return text.strip()
    if text is None and interactive:
        return LATEST
    raise UsageError(
        "RUN is missing: which run?",
        hint=f"Give a run id, the beginning of one, a run's name, or '{LATEST}'.",
    )


def id_prefix(text: str) -> str | None:
    """The hex digits of what may be a run id or the beginning of one; None for anything else."""
    text = text.lower()
    digits = text.replace("-", "")
    if not _DIGITS.fullmatch(digits):
        return None
    whole = str(UUID(digits.ljust(32, "0")))
    return digits if text == digits or whole.startswith(text) else None


def choose(text: str, matches: Sequence[KnownRun], known: Iterable[KnownRun] = ()) -> KnownRun:
    """The one run that a text means: by its whole id, by its name, or by how its id begins.

    Args:
        text: What was given.
        matches: The runs that it can mean.
        known: Other runs, to name the nearest where it means none.

    Raises:
        NotFoundError: It means no run or several; the message lists which it may have been.
    """
    digits = id_prefix(text)
    hexes = {run.id: run.id.replace("-", "") for run in matches}
    for meant in (
        [run for run in matches if hexes[run.id] == digits],
        [run for run in matches if run.name == text],
        [run for run in matches if digits and hexes[run.id].startswith(digits)],
    ):
        if len(meant) == 1:
            return meant[0]
        if meant:
            raise NotFoundError(
                f"'{text}' is the beginning of {len(meant)} run ids:\n{_listed(meant)}",
                hint="Give more of the id, or the run's name.",
            )
    others = list(known)
    near = _nearest(text, others)
    # Something was typed wrong, or nothing like it is there: then the newest may be what is meant.
    what, shown = ("nearest", near) if near else ("newest", others[:_SHOWN])
    raise NotFoundError(
        f"There is no run '{text}'." + (f" The {what} are:\n{_listed(shown)}" if shown else ""),
        hint=f"'modalrun list' shows what there is; RUN is a run id, the first {MIN_PREFIX} or more"
        f" digits of one, a run's name, or '{LATEST}'.",
    )


def _nearest(text: str, runs: list[KnownRun]) -> list[KnownRun]:
    if id_prefix(text):
        keys = {run.id: run for run in runs}
        close = difflib.get_close_matches(text.lower(), [run_id[: len(text)] for run_id in keys])
        found = [run for run_id, run in keys.items() if run_id[: len(text)] in close]
    else:
        names = {run.name: run for run in runs}
        found = [run for name, run in names.items() if text.lower() in name.lower()]
        found = found or [
            names[n] for n in difflib.get_close_matches(text, list(names), cutoff=0.5)
        ]
    return found[:_SHOWN]


def _listed(runs: Sequence[KnownRun]) -> str:
    lines = [f"{run.id}  {run.status:<12}  {run.name}" for run in runs[:_SHOWN]]
    if len(runs) > _SHOWN:
        lines.append(f"and {len(runs) - _SHOWN} more")
    return "\n".join(lines)


@dataclass(frozen=True)
class CreatedRun:
    """A placeholder run, with what its run sandbox needs.

    Attributes:
        id: ZenML's run id.
        name: Its name.
        url: Its page on ZenML's dashboard, where there is one.
        environment: Variables for the sandbox. They hold ZenML's credentials, so they travel as a
            Modal secret and are never printed.
        cached: The steps that ZenML's cache supplied; they are recorded and don't run.
        finished: Whether every step was cached: the run has completed and needs no sandbox.
    """

    id: str
    name: str
    url: str | None
    environment: Mapping[str, str] = field(repr=False)
    cached: frozenset[str] = frozenset()
    finished: bool = False
