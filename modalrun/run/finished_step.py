"""Report the end of a step that an earlier process of its run has recorded. Pure."""

from __future__ import annotations

from modalrun.run.events import StepEvent
from modalrun.run.records import SUCCESSFUL, StepRecord


def end_event(record: StepRecord, now: float) -> StepEvent:
    """Create the event of a finished step's end, for readers of a later process's output alone.

    Args:
        record: Its last record: successful or failed.
        now: The time of a record without an end, in seconds since the epoch.
    """
    state = SUCCESSFUL.get(record.status, "failed")
    ran = state in {"completed", "failed"}
    # The sandbox of any other belongs to another run.
    metadata = record.metadata if ran else None
    return StepEvent(
        record.name,
        state,
        at=record.ended or now,
        attempt=record.sandboxes if ran else record.attempt,
        restarts=record.sandboxes - record.attempt if ran else 0,
        sandbox=metadata.sandbox_id if metadata is not None else None,
        gpu=metadata.gpu if metadata is not None else None,
        cpu=metadata.cpu if metadata is not None else None,
        memory=metadata.memory if metadata is not None else None,
        reason=record.reason if state == "failed" else None,
        began=record.began if ran else None,
    )
