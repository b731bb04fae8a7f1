"""What ZenML knows of runs and their steps, read in as few queries as there can be."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from zenml.client import Client
from zenml.models import PipelineRunResponse, StepRunResponse
from zenml.utils.dashboard_utils import get_run_url

from modalrun.errors import NotFoundError
from modalrun.run.metadata import PREFIX, RunMetadata, StepMetadata, from_metadata
from modalrun.run.records import KnownRun, KnownStack, KnownStep, id_prefix
from modalrun.zenml_api.errors import translated

# Both targets' names end like this, and a target is stored with every run, cached ones too.
_OURS = f"{PREFIX}target:contains:al"
_PAGE = 100


def matching(text: str) -> list[KnownRun]:
    """The runs that a text can mean: of that name, or with an id that is or begins like it.

    Any run counts, not only those that modalrun started.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    digits = id_prefix(text)
    with translated():
        client = Client()
        if digits is not None and len(digits) == 32:
            # Also finds a run of another project than the active one.
            with contextlib.suppress(KeyError):
                return [known(client.zen_store.get_run(UUID(digits)))]
        filters: dict[str, Any] = {"name": f"equals:{text}"}
        if digits is not None:
            filters |= {"id": f"startswith:{digits}", "logical_operator": "or"}
        found = client.list_pipeline_runs(size=_PAGE, hydrate=True, **filters)
        return [known(run) for run in found.items]


def by_id(run_id: str) -> KnownRun:
    """The run of a whole id.

    Raises:
        NotFoundError: There is no such run.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        try:
            return known(Client().zen_store.get_run(UUID(run_id)))
        except KeyError as error:
            raise NotFoundError(f"ZenML has no run {run_id}.") from error


def listed(
    *,
    limit: int,
    states: Sequence[str] = (),
    pipeline: str | None = None,
    since: datetime | None = None,
    everybodys: bool = False,
) -> list[KnownRun]:
    """The newest runs of the active project, newest first, in one query per hundred.

    Args:
        limit: How many at most.
        states: ZenML's words for the states that count; empty for all.
        pipeline: Only runs of this pipeline.
        since: Only runs that were created at this moment (UTC) or later.
        everybodys: Whether runs count that modalrun did not start.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    filters: dict[str, Any] = {}
    if states:
        filters["status"] = f"oneof:{json.dumps(list(states))}"
    if pipeline is not None:
        filters["pipeline_name"] = f"equals:{pipeline}"
    if since is not None:
        filters["created"] = f"gte:{since:%Y-%m-%d %H:%M:%S}"
    if not everybodys:
        filters["run_metadata"] = _OURS
    found: list[KnownRun] = []
    with translated():
        client = Client()
        size = min(limit, _PAGE)
        for page in range(1, -(-limit // size) + 1):
            answer = client.list_pipeline_runs(page=page, size=size, hydrate=True, **filters)
            found += [known(run) for run in answer.items]
            if page >= answer.total_pages:
                break
    return found[:limit]


def read(run: KnownRun) -> tuple[KnownRun, tuple[KnownStep, ...]]:
    """A run and all steps of its pipeline as they are now, parents before children.

    Raises:
        NotFoundError: The run is no longer there.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        client = Client()
        response = client.zen_store.get_run(UUID(run.id))
        fresh = known(response)
        # What modalrun stores with a step costs a query more per page; one sandbox has nothing.
        per_step = fresh.facts is not None and fresh.facts.mode == "per_step"
        recorded: dict[str, StepRunResponse] = {}
        for step in _step_runs(client, response, hydrate=per_step):
            recorded[step.name] = step
        failed = {name for name, step in recorded.items() if step.status.value == "failed"}
        if failed and not per_step:
            for step in _step_runs(client, response, hydrate=True, status="failed"):
                if step.name in recorded and recorded[step.name].id == step.id:
                    recorded[step.name] = step
        return fresh, tuple(
            _known_step(recorded[name], detailed=per_step or name in failed)
            if name in recorded
            else KnownStep(name, "not run")
            for name in _invocations(client, response, list(recorded))
        )


def step_names(run_id: str) -> tuple[str, ...] | None:
    """The names of all steps of a run; None where more may come, as its pipeline is dynamic.

    Raises:
        NotFoundError: There is no such run.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        client = Client()
        try:
            run = client.zen_store.get_run(UUID(run_id))
        except KeyError as error:
            raise NotFoundError(f"ZenML has no run {run_id}.") from error
        # Without a snapshot there is nothing that would name those to come.
        return tuple(_invocations(client, run, [])) or None


def sandbox_seconds(runs: Sequence[KnownRun]) -> dict[str, list[KnownStep]]:
    """Every attempt of the steps of several runs, by run id; in one query per hundred attempts.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    attempts: dict[str, list[KnownStep]] = {run.id: [] for run in runs}
    if not runs:
        return attempts
    with translated():
        client = Client()
        ids = json.dumps([run.id for run in runs])
        for step in _pages(client, pipeline_run_id=f"oneof:{ids}", hydrate=True):
            attempts[str(step.pipeline_run_id)].append(_known_step(step, detailed=True))
    return attempts


def dashboard_url(run: KnownRun) -> str | None:
    """The run's page on ZenML's dashboard; None where there is no dashboard."""
    with translated():
        client = Client()
        if client.zen_store.type.value == "sql":
            return None
        return get_run_url(client.zen_store.get_run(UUID(run.id), hydrate=False)) or None


def known(run: PipelineRunResponse) -> KnownRun:
    """A run as ZenML gave it."""
    pipeline, stack = run.pipeline, run.stack
    return KnownRun(
        id=str(run.id),
        name=run.name,
        pipeline=pipeline.name if pipeline is not None else "",
        status=run.status.value,
        finished=run.status.is_finished,
        created=run.created,
        start=run.start_time,
        end=run.end_time,
        reason=run.get_body().status_reason,
        facts=from_metadata(RunMetadata, run.run_metadata),
        stack=None if stack is None else KnownStack(str(stack.id), stack.name),
    )


def _known_step(step: StepRunResponse, *, detailed: bool) -> KnownStep:
    reason, facts = None, None
    if detailed:
        facts = from_metadata(StepMetadata, step.run_metadata)
        exception = step.get_metadata().exception_info
        if exception is not None and step.status.value == "failed":
            reason = _last_line(exception.traceback)
    return KnownStep(
        name=step.name,
        status=step.status.value,
        attempt=step.version,
        start=step.start_time,
        end=step.end_time,
        reason=reason,
        facts=facts,
    )


def _last_line(text: str) -> str | None:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else None


def _invocations(client: Client, run: PipelineRunResponse, recorded: list[str]) -> list[str]:
    """The names of all steps in graph order, those too that have no record yet."""
    if run.snapshot is None:
        return recorded
    try:
        # The specification of the pipeline names every step without its configuration.
        snapshot = client.zen_store.get_snapshot(
            run.snapshot.id, step_configuration_filter=recorded[:1]
        )
    except KeyError:
        return recorded
    if snapshot.is_dynamic or snapshot.pipeline_spec is None:
        return recorded
    names = [step.invocation_id for step in snapshot.pipeline_spec.steps]
    return [*names, *(name for name in recorded if name not in set(names))]


def _step_runs(
    client: Client, run: PipelineRunResponse, *, hydrate: bool, **filters: Any
) -> Iterator[StepRunResponse]:
    """The attempts of a run's steps, of each step the last one last."""
    found = _pages(
        client, pipeline_run_id=run.id, project=run.project_id, hydrate=hydrate, **filters
    )
    return iter(sorted(found, key=lambda step: (step.created, step.version)))


def _pages(client: Client, **filters: Any) -> Iterator[StepRunResponse]:
    page, pages = 1, 1
    while page <= pages:
        answer = client.list_run_steps(page=page, size=_PAGE, **filters)
        yield from answer.items
        page, pages = page + 1, answer.total_pages
