"""`status --watch` until the run is over, whatever sandboxes its submission tries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import pytest

from modalrun.observe import watch
from modalrun.run.metadata import Announced, RunMetadata
from modalrun.run.records import RunRecord
from modalrun.run.status import NOT_ASKED, RunStatus, SandboxState, derive_status
from tests.unit.fakes import NOW, RUN_ID

METADATA = RunMetadata("modal", "pipeline", "app", "ap-1", "sb-1", 60)
ANNOUNCED = Announced("modal", "pipeline", "app", waiting="waiting for H100, next: A100")
RUN = RunRecord(RUN_ID, "a-run", "training", "initializing", NOW, announced=ANNOUNCED)
WITH_SANDBOX = replace(RUN, metadata=METADATA)

SUBMITTED = derive_status(RUN, (), NOT_ASKED)
QUEUED = derive_status(WITH_SANDBOX, (), SandboxState("running"))
RUNNING = derive_status(replace(WITH_SANDBOX, status="running"), (), SandboxState("running"))
COMPLETED = derive_status(replace(WITH_SANDBOX, status="completed", end=NOW), (), NOT_ASKED)


@pytest.fixture
def listened(monkeypatch: pytest.MonkeyPatch) -> list[RunStatus]:
    """The statuses whose sandbox was listened to; each sandbox ends at once."""
    found: list[RunStatus] = []

    def listen(_: object, status: RunStatus, news: SimpleQueue[Any]) -> None:
        found.append(status)
        news.put(None)

    monkeypatch.setattr(watch._Watcher, "_listen", listen)
    monkeypatch.setattr(watch, "BACKSTOP", 0.01)
    return found


def script(monkeypatch: pytest.MonkeyPatch, *statuses: RunStatus) -> None:
    """Let each read return the next of some statuses, and no read of ZenML alone a new one."""
    following: Iterator[RunStatus] = iter(statuses)
    monkeypatch.setattr(watch, "read_status", lambda *_, **__: next(following))
    monkeypatch.setattr(watch, "refresh", lambda status: status)


def test_the_end_of_a_sandbox_that_has_got_no_place_is_not_the_runs(
    monkeypatch: pytest.MonkeyPatch, listened: list[RunStatus]
) -> None:
    script(monkeypatch, QUEUED, SUBMITTED, SUBMITTED, QUEUED, RUNNING, COMPLETED)
    shown: list[RunStatus] = []
    assert watch.watch(RUN, shown.append) is COMPLETED
    assert listened == [QUEUED, QUEUED]
    assert shown[-1] is COMPLETED


def test_a_sandbox_that_comes_later_is_listened_to(
    monkeypatch: pytest.MonkeyPatch, listened: list[RunStatus]
) -> None:
    script(monkeypatch, SUBMITTED, SUBMITTED, RUNNING, COMPLETED)
    assert watch.watch(RUN, lambda _: None) is COMPLETED
    assert [status.state for status in listened] == ["running"]
