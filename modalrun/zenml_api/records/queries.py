"""Read runs and their steps from ZenML, in as few queries as possible."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from datetime import MAXYEAR, MINYEAR, datetime, timezone
from functools import partial
from typing import Any
from uuid import UUID

from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import Page, PipelineRunResponse, StepRunResponse
from zenml.utils import pagination_utils
from zenml.utils.dashboard_utils import get_run_url

from modalrun.errors import NotFoundError
from modalrun.run.failure import Failure, read_failure
from modalrun.run.metadata import (
    PREFIX,
    Announced,
    RunMetadata,
    StepMetadata,
    from_metadata,
    wrong_keys,
)
from modalrun.run.records import NOT_RUN, RunRecord, StackRecord, StepRecord, id_prefix
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.records.undecodable import (
    is_undecodable,
    run_without_metadata,
    step_without_metadata,
    with_metadata_or_not,
)

# Both targets' names end like this, and a target is stored with every run, cached ones too.
_OURS = f"{PREFIX}target:contains:al"
_PAGE = 100

_EPOCH = datetime.fromtimestamp(0, timezone.utc)
STOPPED = frozenset({ExecutionStatus.STOPPING, ExecutionStatus.STOPPED})
"""ZenML's statuses of a run that was stopped, whether or not its steps have ended."""

_WITH_REASON = (ExecutionStatus.FAILED, ExecutionStatus.RETRYING, ExecutionStatus.STOPPED)
"""ZenML's statuses of a step whose last attempt has ended for a reason."""

_STEP_PAGE = 1000
"""Step runs in one request; with ZenML's default of 20, a large run takes many."""


def matching_runs(text: str) -> list[RunRecord]:
    """Return the runs of a name, an id or a prefix of an id; not only those of modalrun."""
    digits = id_prefix(text)
    with translated():
        client = Client()
        if digits is not None and len(digits) == 32:
            # Also finds a run of another project than the active one.
            with contextlib.suppress(KeyError):
                return [run_record(_run(UUID(digits)))]
        filters: dict[str, Any] = {"name": f"equals:{text}"}
        if digits is not None:
            filters |= {"id": f"startswith:{digits}", "logical_operator": "or"}
        return [run_record(run) for run in _page_of_runs(client, size=_PAGE, **filters).items]


def read_run(run_id: str) -> RunRecord:
    """Return the run of a whole id.

    Raises:
        NotFoundError: There is no such run.
    """
    with translated():
        return run_record(get_run(run_id))


def newest_runs(
    *,
    limit: int,
    states: Sequence[str] = (),
    pipeline: str | None = None,
    since: datetime | None = None,
    everybodys: bool = False,
) -> list[RunRecord]:
    """Return the newest runs of the active project, newest first; one query per hundred.

    Args:
        limit: The maximal number of runs.
        states: Only runs with one of these ZenML statuses; empty for all.
        pipeline: Only runs of this pipeline.
        since: Only runs that were created at this time (UTC) or later.
        everybodys: Whether to include runs that modalrun did not start.
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
    found: list[RunRecord] = []
    with translated():
        client = Client()
        size = min(limit, _PAGE)
        for page in range(1, -(-limit // size) + 1):
            answer = _page_of_runs(client, page=page, size=size, **filters)
            found += [run_record(run) for run in answer.items]
            if page >= answer.total_pages:
                break
    return found[:limit]


def read_run_and_steps(run_id: str) -> tuple[RunRecord, tuple[StepRecord, ...]]:
    """Return a run and all steps of its pipeline, parents before children.

    Raises:
        NotFoundError: The run is no longer there.
    """
    with translated():
        client = Client()
        response = get_run(run_id)
        record = run_record(response)
        # Only steps with sandboxes of their own have metadata, which takes a query more per page.
        per_step = record.metadata is not None and record.metadata.mode == "per_step"
        project = response.project_id
        recorded = {s.name: s for s in step_runs(run_id, project=project, hydrate=per_step)}
        ended = {name for name, step in recorded.items() if step.status in _WITH_REASON}
        if ended and not per_step:
            status = f"oneof:{json.dumps([one.value for one in _WITH_REASON])}"
            for step in step_runs(run_id, project=project, hydrate=True, status=status):
                if step.name in recorded and recorded[step.name].id == step.id:
                    recorded[step.name] = step
        return record, tuple(
            step_record(recorded[name], detailed=per_step or name in ended)
            if name in recorded
            else StepRecord(name, NOT_RUN)
            for name in _invocations(client, response, list(recorded))
        )


def step_names(run_id: str) -> tuple[str, ...] | None:
    """Return the names of all steps of a run; None if its pipeline is dynamic: more may come.

    Raises:
        NotFoundError: There is no such run.
    """
    with translated():
        client = Client()
        run = get_run(run_id)
        return tuple(_invocations(client, run, [])) or None


def step_attempts(runs: Sequence[RunRecord]) -> dict[str, list[StepRecord]]:
    """Return every attempt of the steps of several runs, by run id; one query per thousand."""
    attempts: dict[str, list[StepRecord]] = {run.id: [] for run in runs}
    if not runs:
        return attempts
    with translated():
        ids = json.dumps([run.id for run in runs])
        for step in step_runs(f"oneof:{ids}", hydrate=True):
            # Of which run a step is that ZenML can't decode is not known.
            if (run_id := str(step.pipeline_run_id)) in attempts:
                attempts[run_id].append(step_record(step, detailed=True))
    return attempts


def run_record(run: PipelineRunResponse) -> RunRecord:
    """Convert ZenML's response to a run record."""
    pipeline, stack = run.pipeline, run.stack
    return RunRecord(
        id=str(run.id),
        name=run.name,
        pipeline=pipeline.name if pipeline is not None else "",
        status=run.status.value,
        created=_utc(run.created) or _EPOCH,
        start=_utc(run.start_time),
        end=_utc(run.end_time),
        reason=run.get_body().status_reason,
        metadata=from_metadata(RunMetadata, run.run_metadata),
        announced=from_metadata(Announced, run.run_metadata),
        stack=None if stack is None else StackRecord(str(stack.id), stack.name),
        url=run_url(run),
        wrong_metadata=("all",) if is_undecodable(run) else wrong_keys(run.run_metadata),
    )


def step_record(step: StepRunResponse, *, detailed: bool = False) -> StepRecord:
    """Convert ZenML's response to a step record.

    Args:
        detailed: Whether to include failure and metadata, which take a hydrated response.
    """
    return StepRecord(
        name=step.name,
        status=step.status.value,
        attempt=step.version,
        start=_utc(step.start_time),
        end=_utc(step.end_time),
        failure=_failure(step) if detailed and step.status in _WITH_REASON else None,
        metadata=from_metadata(StepMetadata, step.run_metadata) if detailed else None,
        id=str(step.id),
    )


def _failure(step: StepRunResponse) -> Failure | None:
    """Return why a step has failed: its exception, or what was stored for it."""
    info = step.get_metadata().exception_info
    return read_failure(info.traceback, info.source, info.message) if info else None


def _utc(moment: datetime | None) -> datetime | None:
    """Add the time zone that ZenML leaves out; None for a year that no other zone may have."""
    if moment is None or not MINYEAR < moment.year < MAXYEAR:
        return None
    return moment.replace(tzinfo=timezone.utc)


def get_run(run_id: str, *, hydrate: bool = True) -> PipelineRunResponse:
    """Return ZenML's response for a run.

    Raises:
        NotFoundError: There is no such run.
    """
    try:
        return _run(UUID(run_id), hydrate=hydrate)
    except KeyError as error:
        raise NotFoundError(f"ZenML has no run {run_id}.") from error


def _run(run_id: UUID, *, hydrate: bool = True) -> PipelineRunResponse:
    get_run = Client().zen_store.get_run
    if not hydrate:
        return get_run(run_id, hydrate=False)
    return with_metadata_or_not(
        lambda: get_run(run_id, hydrate=True),
        lambda: run_without_metadata(get_run(run_id, hydrate=False)),
    )


def _page_of_runs(client: Client, **filters: Any) -> Page[PipelineRunResponse]:
    """Return a page of runs with their metadata; if it has an undecodable one, run by run."""

    def one_by_one() -> Page[PipelineRunResponse]:
        page = client.list_pipeline_runs(hydrate=False, **filters)
        page.items = [_run(run.id) for run in page.items]
        return page

    return with_metadata_or_not(
        lambda: client.list_pipeline_runs(hydrate=True, **filters), one_by_one
    )


def run_url(run: PipelineRunResponse) -> str | None:
    """Return the run's page on ZenML's dashboard; None if there is no dashboard."""
    return get_run_url(run) or None


def _invocations(client: Client, run: PipelineRunResponse, recorded: list[str]) -> list[str]:
    """Return the names of all steps in graph order, with those that have no record yet."""
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


def step_runs(run_id: str, *, hydrate: bool = False, **filters: Any) -> list[StepRunResponse]:
    """Return ZenML's responses for the attempts of a run's steps, oldest first.

    Args:
        run_id: ZenML's run id, or a filter that means several.
        hydrate: Whether to read metadata too; those that ZenML can't decode are left out.
        filters: As for `Client.list_run_steps`; the project is the active one unless given.
    """
    client = Client()
    filters = {"project": client.active_project.id, "size": _STEP_PAGE, **filters}

    def read(hydrate: bool) -> list[StepRunResponse]:
        return pagination_utils.depaginate(
            client.list_run_steps, pipeline_run_id=run_id, hydrate=hydrate, **filters
        )

    def one_by_one() -> list[StepRunResponse]:
        get = client.zen_store.get_run_step
        return [
            with_metadata_or_not(partial(get, step.id), partial(step_without_metadata, step))
            for step in read(hydrate=False)
        ]

    found = with_metadata_or_not(lambda: read(True), one_by_one) if hydrate else read(False)
    return sorted(found, key=lambda step: (step.created, step.version))
