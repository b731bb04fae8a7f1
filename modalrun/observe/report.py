"""Collect what the report of a run shows."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import yaml

from modalrun.errors import ModalrunError, without_credentials
from modalrun.modal_api.gateway import MODAL, ModalGateway
from modalrun.observe.cost import RunCost, spent
from modalrun.observe.log_source import source_of
from modalrun.observe.logs import LogRequest, read
from modalrun.observe.status import child_attempts, read_status
from modalrun.plan.pricing import LIST_PRICES
from modalrun.run.artifacts import Artifact
from modalrun.run.failure import relative
from modalrun.run.log_lines import LineFilter
from modalrun.run.records import RunRecord
from modalrun.run.status import Note, RunStatus
from modalrun.run.timeline import Timeline, timeline_of
from modalrun.spec.messages import SECRETS
from modalrun.spec.spec_record import SpecRecord
from modalrun.zenml_api.gateway import ZENML, ZenMLGateway

LAST_LINES = 20
"""Lines of a failed step's output."""

_ANYTHING = "***"


@dataclass(frozen=True)
class Report:
    """A run with all that its report shows.

    Attributes:
        timeline: The phases of its steps.
        cost: What it has cost by list prices, wherever it ran.
        artifacts: What its steps have made, with visualizations.
        output: The last lines of each failed step.
        spec: The lines of the run spec that it was compiled from.
        plan: The lines of its resolved plan.
        notes: What could not be read.
        now: When it was read.
        related: Runs that it reruns, or that rerun it: how, and the name and id of each.
    """

    view: RunStatus
    timeline: Timeline
    cost: RunCost
    artifacts: tuple[Artifact, ...]
    output: Mapping[str, tuple[str, ...]]
    spec: tuple[str, ...]
    plan: tuple[str, ...]
    notes: tuple[Note, ...]
    now: datetime
    related: tuple[tuple[str, str, str], ...] = ()


def read_report(
    run_id: str,
    plan: tuple[str, ...],
    *,
    zenml: ZenMLGateway = ZENML,
    modal: ModalGateway = MODAL,
) -> Report:
    """Read all that the report of a run shows. What can't be read is told in a note.

    Raises:
        ModalrunError: ZenML refuses or is not there.
    """
    view = read_status(run_id, zenml=zenml, modal=modal)
    attempts = zenml.step_attempts([view.run])[run_id]
    now = datetime.now(timezone.utc)
    notes: list[Note] = []
    output: dict[str, tuple[str, ...]] = {}
    artifacts = [artifact for attempt in attempts for artifact in attempt.outputs]
    try:
        artifacts = zenml.with_visualizations(run_id, artifacts) if artifacts else []
    except ModalrunError as error:
        text = f"What ZenML has stored to show of the artifacts is missing here: {error.problem}"
        notes.append(Note(text))
    failed = [step.name for step in view.failed]
    if failed:
        try:
            output = _last_lines(view.run, failed)
        except ModalrunError as error:
            notes.append(Note(f"The output of the failed steps is missing here: {error.problem}"))
    return Report(
        view,
        timeline_of(view, attempts, now.timestamp()),
        spent(view.run, [*attempts, *child_attempts(view.run, zenml=zenml)], now, LIST_PRICES),
        tuple(artifacts),
        output,
        tuple(_spec(view.run, zenml)),
        plan,
        tuple(notes),
        now,
        tuple(_related(view.run, zenml)),
    )


def _related(run: RunRecord, zenml: ZenMLGateway) -> Iterator[tuple[str, str, str]]:
    known = run.metadata
    others = {"child of": run.parent}
    if known is not None:
        others |= {"rerun of": known.rerun_of, "rerun by": known.rerun_by}
    for how, other in others.items():
        if other is not None:
            name = "a run that ZenML doesn't have any more"
            with suppress(ModalrunError):
                name = zenml.read_run(other).name
            yield how, name, other


def _last_lines(run: RunRecord, steps: list[str]) -> dict[str, tuple[str, ...]]:
    found = {name: deque[str](maxlen=LAST_LINES) for name in steps}
    request = LogRequest(LineFilter())
    for batch in read(source_of(run, lambda _: None), request, lambda _: None):
        for line in batch:
            if line.step in found:
                found[line.step].append(relative(line.text))
    return {name: tuple(lines) for name, lines in found.items()}


def _spec(run: RunRecord, zenml: ZenMLGateway) -> list[str]:
    try:
        record = SpecRecord.of(zenml.deployment_of(run.id).environment)
    except ModalrunError as error:
        return [error.problem]
    if record is None:
        return ["No run spec is stored with this run's deployment."]
    # The record leaves them out: without them, the spec would run elsewhere.
    where: dict[str, str] = {"target": run.place.target} if run.place is not None else {}
    where |= {"stack": run.stack.name} if run.stack is not None else {}
    text = yaml.safe_dump(_without_values({**record.file, **where}), sort_keys=False)
    lines = without_credentials(text).splitlines()
    for flag, path, value in record.flags:
        shown = _without_values(value, hidden=not SECRETS.isdisjoint(path))
        lines.append(without_credentials(f"# {flag} {json.dumps(shown, default=str)}"))
    return lines


def _without_values(value: Any, *, hidden: bool = False) -> Any:
    """Replace values that may be secret, such as those of environment variables."""
    if isinstance(value, Mapping):
        return {
            key: _without_values(one, hidden=hidden or key in SECRETS) for key, one in value.items()
        }
    if isinstance(value, list):
        return [_without_values(one, hidden=hidden) for one in value]
    return _ANYTHING if hidden else value
