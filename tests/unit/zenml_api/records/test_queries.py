"""What is read of a run's steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import pytest

from modalrun.errors import NotFoundError
from modalrun.run.failure import Failure
from modalrun.zenml_api.records import queries, stores
from modalrun.zenml_api.records.responses import Page, StoredDeployment, StoredRun, StoredStep
from modalrun.zenml_api.records.stores import Store

_NOW = datetime(2026, 11, 28, tzinfo=timezone.utc)
_EARLIER = _NOW - timedelta(days=1)
_RUN = StoredRun(
    *("r-1", "a-run", "growing", "completed", _NOW),
    project="p-1",
    deployment="d-1",
    dynamic=True,
    values={},
    orchestrator_run_id=None,
)

# Newest first, as ZenML answers.
_CHILDREN = [
    replace(_RUN, id=name, parent=parent, call=call)
    for name, parent, call in (
        ("c-3", "c-1", "deep"),
        ("c-2", _RUN.id, "inner_2"),
        ("c-1", _RUN.id, "inner"),
    )
]


class _Store:
    """A store with a dynamic run of two steps, which tells what they wait for if it is asked."""

    def run(self, run_id: str, *, hydrate: bool = True) -> StoredRun:
        return _RUN

    def runs(self, *, hydrate: bool, page: int, **filters: Any) -> Page[StoredRun]:
        if "parent_run_id" in filters:
            above = json.loads(filters["parent_run_id"].removeprefix("oneof:"))
            return Page([child for child in _CHILDREN if child.parent in above], 1)
        if "status" in filters:
            return self._failed(page, filters)
        # A new run has moved the others by one.
        names = {1: ("new", "a"), 2: ("a", "b")}[page]
        return Page([replace(_RUN, id=name) for name in names], 2)

    def _failed(self, page: int, filters: dict[str, Any]) -> Page[StoredRun]:
        """Return a failed run a page; of the newest, the other steps go on."""
        if "failed" not in filters["status"]:
            return Page([replace(_RUN, id="begun", status="running", created=_EARLIER)], 1)
        goes_on = replace(_RUN, id="goes on", status="running", failing=True)
        ended = replace(_RUN, id="ended", status="failed")
        before = replace(_RUN, id="before", status="failed", created=_EARLIER)
        return Page([[goes_on, ended, before][page - 1]], 3)

    def steps(self, *, hydrate: bool, **_: Any) -> Page[StoredStep]:
        records = (
            StoredStep("load", "completed", 1, created=_NOW, run=_RUN.id, heartbeat=None),
            StoredStep(
                *("train", "completed", 1),
                upstream=("load",),
                created=_NOW,
                run=_RUN.id,
                heartbeat=None,
                environment={"OF_STEP": "1"},
            ),
        )
        return Page([one if hydrate else replace(one, upstream=()) for one in records], 1)

    def deployment(self, deployment_id: str, names: list[str]) -> StoredDeployment:
        return StoredDeployment(None, {"environment": {"OF_PIPELINE": "1"}}, {})


@pytest.fixture(autouse=True)
def store() -> Iterator[None]:
    stores.use(cast("Store", _Store()))
    yield
    stores.use(None)


def test_the_steps_of_a_dynamic_pipeline_say_what_they_wait_for() -> None:
    _, steps = queries.read_run_and_steps(_RUN.id)
    assert {step.name: step.upstream for step in steps} == {"load": (), "train": ("load",)}


def test_the_runs_of_child_pipelines_have_the_labels_of_their_steps() -> None:
    run, _ = queries.read_run_and_steps(_RUN.id)
    found = {label: child.id for label, child in run.children.items()}
    assert found == {"inner": "c-1", "inner_2": "c-2", "inner/deep": "c-3"}
    assert queries.child_runs(replace(_RUN, dynamic=False)) == {}


def test_the_variables_of_a_step_or_of_the_pipeline() -> None:
    assert queries.environment_of(_RUN.id, "train") == {"OF_STEP": "1"}
    assert queries.environment_of(_RUN.id, None) == {"OF_PIPELINE": "1"}


class _Refusing(_Store):
    """A store with a step whose second attempt was refused; two retries were left of three."""

    def steps(self, *, hydrate: bool, **_: Any) -> Page[StoredStep]:
        def record(status: str, attempt: int, reason: str | None = None) -> StoredStep:
            failure = Failure(reason) if reason else None
            at = {"created": _NOW + timedelta(seconds=attempt), "run": _RUN.id, "heartbeat": None}
            at["id"] = f"s-{attempt}"
            return StoredStep("train", status, attempt, failure=failure, **at)  # type: ignore[arg-type]

        last = replace(record("failed", 4, "Modal refuses it."), tries=2)
        return Page([record("retried", 1), record("retried", 2), record("retried", 3), last], 1)


class _RefusingInPipelineMode(_Refusing):
    """The same of a static pipeline, whose steps are listed without details first."""

    def run(self, run_id: str, *, hydrate: bool = True) -> StoredRun:
        return replace(_RUN, dynamic=False)

    def steps(self, *, hydrate: bool, **_: Any) -> Page[StoredStep]:
        steps = super().steps(hydrate=hydrate).items
        if not hydrate:
            steps = [replace(one, run=None, tries=None, failure=None) for one in steps]
        return Page(steps, 1)


@pytest.mark.parametrize("store_class", [_Refusing, _RefusingInPipelineMode])
def test_a_retry_that_did_not_come_is_no_attempt(store_class: type[_Store]) -> None:
    stores.use(cast("Store", store_class()))
    _, (step,) = queries.read_run_and_steps(_RUN.id)
    assert (step.status, step.attempt, step.reason) == ("failed", 2, "Modal refuses it.")
    attempts = queries.step_attempts([_RUN])[_RUN.id]
    assert [(one.attempt, one.status) for one in attempts] == [(1, "retried"), (2, "failed")]


class _Deleting(_Store):
    """A store in which a run is being deleted: ZenML's first query of its steps fails."""

    def __init__(self) -> None:
        self._asked = 0

    def run(self, run_id: str, *, hydrate: bool = True) -> StoredRun:
        raise KeyError(f"Unable to get {run_id}")

    def steps(self, *, hydrate: bool, **filters: Any) -> Page[StoredStep]:
        self._asked += 1
        if self._asked == 1:
            raise AttributeError("'NoneType' object has no attribute 'start_time'")
        return super().steps(hydrate=hydrate, **filters)


def test_a_run_that_is_deleted_while_its_steps_are_read_is_not_there() -> None:
    stores.use(cast("Store", _Deleting()))
    with pytest.raises(NotFoundError, match="ZenML has no run r-1"):
        queries.step_runs(_RUN.id)
    stores.use(cast("Store", _Deleting()))
    assert [len(found) for found in queries.step_attempts([_RUN]).values()] == [2]


def test_a_run_that_begins_meanwhile_makes_none_appear_twice() -> None:
    found = queries.newest_runs(limit=150)
    assert [run.id for run in found] == ["new", "a", "b"]


@pytest.mark.parametrize(
    ("states", "limit", "found"),
    [
        (["failed"], 1, ["ended"]),
        (["failed"], 9, ["ended", "before"]),
        (["running"], 9, ["goes on", "begun"]),
        (["running"], 1, ["goes on"]),
        (["running", "failed"], 2, ["goes on", "ended"]),
    ],
)
def test_a_run_of_which_steps_go_on_is_running_whatever_zenml_calls_it(
    states: list[str], limit: int, found: list[str]
) -> None:
    assert [run.id for run in queries.newest_runs(limit=limit, states=states)] == found
