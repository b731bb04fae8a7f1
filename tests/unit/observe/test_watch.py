"""Watch a run from before it has its sandbox until it is over."""

from __future__ import annotations

from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import pytest

from modalrun.observe import watch as module
from modalrun.observe.watch import watch
from modalrun.run.metadata import Announced, RunMetadata
from modalrun.run.records import RunRecord
from modalrun.run.status import NOT_ASKED, RunStatus, SandboxState, derive_status
from tests.unit.fakes import NOW, RUN_ID

METADATA = RunMetadata("modal", "pipeline", "app", "ap-1", "sb-1", 600)
ANNOUNCED = Announced("modal", "pipeline", "app", waiting="waiting for H100, next: A100")
RUN = RunRecord(RUN_ID, "a-run", "training", "running", NOW, NOW, metadata=METADATA)
SUBMITTED = replace(RUN, status="initializing", metadata=None, announced=ANNOUNCED)

RUNNING = SandboxState("running")
COMPLETED = derive_status(replace(RUN, status="completed", end=NOW), (), NOT_ASKED)


def watched(
    monkeypatch: pytest.MonkeyPatch, reads: list[RunStatus], records: list[RunRecord]
) -> tuple[RunStatus, int]:
    """Watch a run whose sandboxes end at once; return its last status, and how many there were.

    Args:
        reads: Each status by ZenML and Modal; then the run has completed.
        records: Each record by ZenML alone; the same.
    """
    listened: list[str] = []

    def listen(self: Any, status: RunStatus, news: SimpleQueue[Any]) -> None:
        listened.append(status.run.id)
        news.put(None)

    def read(run_id: str, **_: Any) -> RunStatus:
        return reads.pop(0) if reads else COMPLETED

    def refresh(status: RunStatus) -> RunStatus:
        return derive_status(records.pop(0), (), status.modal) if records else COMPLETED

    monkeypatch.setattr(module, "BACKSTOP", 0.01)
    monkeypatch.setattr(module._Watcher, "_listen", listen)
    monkeypatch.setattr(module, "read_status", read)
    monkeypatch.setattr(module, "refresh", refresh)
    return watch(RUN, lambda _: None), len(listened)


def test_the_sandbox_of_a_run_that_was_being_submitted_is_listened_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = derive_status(RUN, (), RUNNING)
    reads = [derive_status(SUBMITTED, (), NOT_ASKED), begun, begun]
    assert watched(monkeypatch, reads, [SUBMITTED, RUN, RUN]) == (COMPLETED, 1)


def test_a_sandbox_that_gave_way_to_that_of_another_gpu_does_not_end_the_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = derive_status(replace(SUBMITTED, metadata=METADATA), (), RUNNING)
    given_up = derive_status(SUBMITTED, (), NOT_ASKED)
    reads = [waiting, given_up, given_up]
    assert watched(monkeypatch, reads, [SUBMITTED, SUBMITTED]) == (COMPLETED, 1)


def test_modal_is_asked_again_when_it_has_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = derive_status(RUN, (), SandboxState("unknown", problem="Modal does not answer."))
    begun = derive_status(RUN, (), RUNNING)
    # ZenML's record alone would say "running" for ever.
    assert watched(monkeypatch, [unknown, unknown, begun, begun, begun], [RUN] * 9) == (
        COMPLETED,
        1,
    )
