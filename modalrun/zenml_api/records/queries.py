"""Read runs and their steps from ZenML, in as few queries as possible. Does not import ZenML."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar
from uuid import UUID

from modalrun.errors import NoRunError
from modalrun.run.metadata import PREFIX
from modalrun.run.records import NOT_RUN, RunRecord, StepRecord, id_prefix
from modalrun.util.modal_catalog import MAX_TIMEOUT
from modalrun.zenml_api.errors import ServerTrouble, translated
from modalrun.zenml_api.records import stores
from modalrun.zenml_api.records.responses import ENDED, Page, StoredRun, StoredStep
from modalrun.zenml_api.retry import impatient

T = TypeVar("T")

# Both targets' names end like this, and a target is stored with every run, cached ones too.
_OURS = f"{PREFIX}target:contains:al"
_PAGE = 100

_TIME = "%Y-%m-%d %H:%M:%S"

_LONGEST_STEP = timedelta(seconds=MAX_TIMEOUT, hours=1)
"""How long a step can run, and some time in which its sandbox starts and clocks differ."""

_STEP_PAGE = 1000
"""Step runs in one request; with ZenML's default of 20, a large run takes many."""

UNDECODABLE = (RecursionError, ValueError)
"""Errors of `json` and pydantic, here or on ZenML's server, about metadata that can't be decoded.

Whoever may write in the ZenML project can store such metadata, a deeply nested list for one."""


def matching_runs(text: str) -> list[RunRecord]:
    """Return the runs of a name, an id or a prefix of an id; not only those of modalrun."""
    digits = id_prefix(text)
    with translated():
        if digits is not None and len(digits) == 32:
            # Also finds a run of another project than the active one.
            with contextlib.suppress(KeyError):
                return [_run(str(UUID(digits)))]
        filters: dict[str, Any] = {"name": f"equals:{text}"}
        if digits is not None:
            filters |= {"id": f"startswith:{digits}", "logical_operator": "or"}
        return [*_page_of_runs(size=_PAGE, **filters).items]


def active_user() -> str:
    """Return the id of the user, or service account, that this process acts as in ZenML."""
    with translated():
        return stores.current().active_user()


def read_run(run_id: str) -> RunRecord:
    """Return the run of a whole id.

    Raises:
        NotFoundError: There is no such run.
    """
    with translated():
        return get_run(run_id)


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
        states: Only runs with one of these statuses; empty for all.
        since: Only runs that were created at this time (UTC) or later.
        everybodys: Whether to include runs that modalrun did not start.
    """
    filters: dict[str, Any] = {}
    if states:
        filters["status"] = f"oneof:{json.dumps(list(states))}"
    if pipeline is not None:
        filters["pipeline_name"] = f"equals:{pipeline}"
    if since is not None:
        filters["created"] = f"gte:{since:{_TIME}}"
    if not everybodys:
        filters["run_metadata"] = _OURS
    found = _newest(limit, filters, states)
    if "running" in states and "failed" not in states:
        # ZenML calls a run failed while other steps go on, each of which changes it as it ends.
        changed = datetime.now(timezone.utc) - _LONGEST_STEP
        filters |= {"status": "equals:failed", "updated": f"gte:{changed:{_TIME}}"}
        found |= _newest(limit, filters, states)
    return sorted(found.values(), key=lambda run: run.created, reverse=True)[:limit]


def _newest(limit: int, filters: Mapping[str, Any], states: Sequence[str]) -> dict[str, RunRecord]:
    # By id: a run that begins meanwhile moves another one to the next page.
    found: dict[str, RunRecord] = {}
    with translated():
        size, page, pages = min(limit, _PAGE), 1, 1
        while page <= pages and len(found) < limit:
            answer = _page_of_runs(page=page, size=size, **filters)
            found |= {run.id: run for run in answer.items if not states or run.status in states}
            page, pages = page + 1, answer.pages
    return found


def read_run_and_steps(run_id: str) -> tuple[RunRecord, tuple[StepRecord, ...]]:
    """Return a run and all steps of its pipeline, parents before children.

    Raises:
        NotFoundError: The run is no longer there.
    """
    with translated():
        run = get_run(run_id)
        run = replace(run, children=child_runs(run, project=run.project))
        # Only steps with sandboxes of their own have metadata, which takes a query more per page,
        # and only those of a dynamic pipeline say there what they wait for.
        hydrate = run.per_step or run.dynamic
        found = step_runs(run_id, project=run.project, hydrate=hydrate)
        if not hydrate and any(step.status in ENDED for step in found):
            status = f"oneof:{json.dumps(list(ENDED))}"
            ended = step_runs(run_id, project=run.project, hydrate=True, status=status)
            known = {step.id: step for step in ended}
            # Without details ZenML doesn't say of which run a step is.
            found = [replace(known.get(step.id, step), run=run.id) for step in found]
        recorded = {step.name: step for step in _without_fillers(found)}
        graph = _graph(run, recorded)
        hints = (run.metadata and run.metadata.hints) or {}
        target = run.place.target if run.place is not None else None
        return run, tuple(
            replace(
                recorded.get(name) or StepRecord(name, NOT_RUN),
                upstream=upstream,
                hint=hints.get(name),
                target=target,
            )
            for name, upstream in graph.items()
        )


def step_names(run_id: str) -> tuple[str, ...] | None:
    """Return the names of all steps of a run; None if its pipeline is dynamic: more may come.

    Raises:
        NotFoundError: There is no such run.
    """
    with translated():
        return tuple(_graph(get_run(run_id), {})) or None


def environment_of(run_id: str, step: str | None) -> dict[str, str]:
    """Return the variables that the pipeline and a step that has begun set for its process.

    Those of the stack, and the values of ZenML's secrets, are not among them.

    Args:
        step: The step; None for the pipeline's variables alone.

    Raises:
        NotFoundError: There is no such run.
    """
    with translated():
        run = get_run(run_id, hydrate=False)
        if step is not None:
            found = step_runs(run_id, project=run.project, hydrate=True, name=f"equals:{step}")
            return dict(found[-1].environment) if found else {}
        if run.deployment is None:
            return {}
        return dict(stores.current().deployment(run.deployment, []).pipeline["environment"])


def child_runs(run: RunRecord, *, project: str | None = None) -> dict[str, RunRecord]:
    """Return the runs of child pipelines, and of theirs, by label; one query a generation.

    Args:
        project: The id of the run's project; None for the active one.
    """
    found: dict[str, RunRecord] = {}
    above = {run.id: ""} if run.dynamic else {}
    with translated():
        while above:
            ids = f"oneof:{json.dumps([*above])}"
            filters = {"parent_run_id": ids, "project": project, "size": _PAGE}
            below = all_pages(stores.current().runs, hydrate=False, **filters)
            labels = {f"{above[str(child.parent)]}{child.call}": child for child in reversed(below)}
            found |= labels
            above = {child.id: f"{label}/" for label, child in labels.items()}
    return found


def step_attempts(runs: Sequence[RunRecord]) -> dict[str, list[StepRecord]]:
    """Return every attempt of the steps of several runs, by run id; one query per thousand."""
    attempts: dict[str, list[StepRecord]] = {run.id: [] for run in runs}
    if not runs:
        return attempts
    with translated():
        ids = json.dumps([run.id for run in runs])
        for step in _without_fillers(step_runs(f"oneof:{ids}", hydrate=True)):
            # Of which run a step is that ZenML can't decode is not known.
            if step.run in attempts:
                attempts[step.run].append(step)
    return attempts


def get_run(run_id: str, *, hydrate: bool = True) -> StoredRun:
    """Return a run as ZenML stores it.

    Raises:
        NoRunError: There is no such run.
    """
    try:
        return _run(run_id, hydrate=hydrate)
    except KeyError as error:
        raise NoRunError(f"ZenML has no run {run_id}.") from error


def _run(run_id: str, *, hydrate: bool = True) -> StoredRun:
    def plain() -> StoredRun:
        return stores.current().run(run_id, hydrate=False)

    whole = functools.partial(stores.current().run, run_id)
    return _with_metadata_or_not(whole, plain) if hydrate else plain()


def _page_of_runs(**filters: Any) -> Page[StoredRun]:
    """Return a page of runs with their metadata; if it has an undecodable one, run by run."""
    store = stores.current()

    def one_by_one() -> Page[StoredRun]:
        page = store.runs(hydrate=False, **filters)
        return replace(page, items=[_run(run.id) for run in page.items])

    return _with_metadata_or_not(lambda: store.runs(hydrate=True, **filters), one_by_one)


def _graph(run: StoredRun, recorded: Mapping[str, StepRecord]) -> dict[str, tuple[str, ...]]:
    """Return all steps in graph order, also without a record, and what each of them waits for."""
    found = {name: record.upstream for name, record in recorded.items()}
    if run.deployment is None:
        return found
    try:
        steps = stores.current().deployment(run.deployment, list(recorded)[:1]).steps
    except KeyError:
        return found
    return {**steps, **{n: found[n] for n in found if n not in steps}} if steps else found


def step_runs(run_id: str, *, hydrate: bool = False, **filters: Any) -> list[StoredStep]:
    """Return the attempts of a run's steps, oldest first.

    Args:
        run_id: ZenML's run id, or a filter that means several.
        hydrate: Whether to read metadata too; those that ZenML can't decode are left out.
        filters: As for `Store.steps`; the project is the active one unless given.

    Raises:
        NotFoundError: The run was deleted meanwhile.
    """
    store = stores.current()

    def read(hydrate: bool) -> list[StoredStep]:
        return all_pages(
            store.steps, pipeline_run_id=run_id, hydrate=hydrate, size=_STEP_PAGE, **filters
        )

    def one(step: StoredStep) -> StoredStep:
        return _with_metadata_or_not(lambda: store.step(step.id), lambda: step)

    def one_by_one() -> list[StoredStep]:
        return [one(step) for step in read(hydrate=False)]

    def found() -> list[StoredStep]:
        return _with_metadata_or_not(lambda: read(True), one_by_one) if hydrate else read(False)

    try:
        steps = found()
    except AttributeError:
        # ZenML's own, where a run is deleted between two of its queries
        # (`step_run_schemas.py:397`, 0.98.0).
        if not run_id.startswith("oneof:"):
            get_run(run_id, hydrate=False)
        steps = found()
    return sorted(steps, key=lambda step: (step.created, step.attempt))


def _without_fillers(steps: Iterable[StoredStep]) -> list[StoredStep]:
    """Leave out the records of retries that did not come (`step_records.fail_step`).

    The attempt before them gets their status and reason.
    """
    found: dict[tuple[str | None, str], dict[int, StoredStep]] = {}
    for step in steps:
        own = found.setdefault((step.run, step.name), {})
        last = own.get(step.tries) if isinstance(step.tries, int) else None
        if last is None:
            own[step.attempt] = step
            continue
        metadata = step.metadata.over(last.metadata) if step.metadata else last.metadata
        last = replace(last, status=step.status, failure=step.failure, metadata=metadata)
        kept = {number: one for number, one in own.items() if number < last.attempt}
        found[step.run, step.name] = {**kept, last.attempt: last}
    return [step for own in found.values() for step in own.values()]


def all_pages(read: Callable[..., Page[T]], **filters: Any) -> list[T]:
    """Return the items of all pages of a list of `Store`."""
    page, pages, found = 1, 1, list[T]()
    while page <= pages:
        answer = read(page=page, **filters)
        found += answer.items
        page, pages = page + 1, answer.pages
    return found


def _with_metadata_or_not(read: Callable[[], T], plain: Callable[[], T]) -> T:
    """Read with metadata, or if ZenML can't decode them, without (`plain`)."""
    try:
        with impatient():
            return read()
    except UNDECODABLE:
        return plain()
    except ServerTrouble:
        found = plain()
    # The server may have had trouble with everything just now.
    with contextlib.suppress(ServerTrouble), impatient():
        return read()
    return found
