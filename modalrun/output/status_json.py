"""Render the status of a run as one versioned JSON object."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from modalrun.run.failure import Failure, has_failed
from modalrun.run.metadata import Announced, RunMetadata
from modalrun.run.records import UNBEGUN, RunRecord, StepRecord
from modalrun.run.status import RunStatus

VERSION = 1


def as_json(view: RunStatus) -> str:
    """Render a run for programs: times in UTC, durations in seconds, memory in MiB."""
    run, metadata, modal = view.run, view.run.metadata, view.modal
    document = {
        "format": "modalrun-status",
        "version": VERSION,
        **run_fields(run, run.place),
        "state": view.state,
        "over": view.over,
        "exit_code": view.exit_code,
        "headline": view.headline,
        "next": view.next,
        "zenml": {"status": run.zenml_status, "reason": run.reason, "url": run.url},
        "app": {"name": metadata.app, "id": metadata.app_id, "url": app_url(run)}
        if metadata
        else None,
        "sandbox": {
            "id": metadata.sandbox_id,
            "url": metadata.sandbox_url,
            "presence": view.presence,
            "exit_code": modal.exit_code,
            "timeout": metadata.timeout or None,
            "gpu": metadata.gpu,
            "cpu": metadata.cpu,
            "memory_mib": metadata.memory,
        }
        if metadata
        else None,
        "parent": run.parent,
        "children": [
            {"label": label, "id": child.id, "name": child.name, "state": child.status}
            for label, child in run.children.items()
        ],
        "rerun_of": metadata.rerun_of if metadata else None,
        "rerun_by": metadata.rerun_by if metadata else None,
        "steps": [_step(step, view) for step in view.steps],
        "notes": [{"text": note.text, "commands": list(note.commands)} for note in view.notes],
    }
    return json.dumps(document, indent=2)


def run_fields(run: RunRecord, place: RunMetadata | Announced | None) -> dict[str, Any]:
    """Return the fields of a run that 'status' and 'list' share."""
    return {
        "id": run.id,
        "name": run.name,
        "pipeline": run.pipeline,
        "mode": place.mode if place else None,
        "target": place.target if place else None,
        "stack": {"id": run.stack.id, "name": run.stack.name} if run.stack else None,
        "environment": place.environment if place else None,
        "created": moment(run.created),
        "started": moment(run.start),
        "ended": moment(run.end),
        "duration": seconds(run.start, run.end),
    }


def app_url(run: RunRecord) -> str | None:
    """Return the app's page on Modal's dashboard (`modal/app.py:487`, 1.6.4); None if local."""
    metadata = run.metadata
    return (
        f"https://modal.com/id/{metadata.app_id}"
        if metadata and metadata.target == "modal"
        else None
    )


def _step(step: StepRecord, view: RunStatus) -> dict[str, Any]:
    metadata = view.sandbox_of(step)
    ran = step.status not in UNBEGUN
    return {
        "name": step.name,
        "state": step.status,
        "attempt": step.attempt if ran else None,
        "started": moment(step.start),
        "ended": moment(step.end),
        "duration": seconds(step.start, step.end),
        "gpu": metadata.gpu if metadata else None,
        "cpu": metadata.cpu if metadata else None,
        "memory_mib": metadata.memory if metadata else None,
        "sandbox": (metadata.sandbox_id or None) if metadata and ran else None,
        "exit_code": step.exit_code,
        "exit_reason": step.reason,
        "failure": _failure(step.failure),
        "next": step.next if has_failed(step.status, step.failure, view.run.status) else None,
        "infrastructure_retries": step.metadata.infrastructure_retries if step.metadata else None,
    }


def _failure(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {
        "class": failure.kind,
        "message": failure.message,
        "place": failure.place,
        "lines": list(failure.lines),
    }


def moment(at: datetime | None) -> str | None:
    """Format a moment of ZenML, which is in UTC without a zone."""
    return None if at is None else f"{at.replace(tzinfo=None).isoformat()}Z"


def seconds(start: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds between two moments; None if one of them is None."""
    return None if start is None or end is None else round((end - start).total_seconds(), 3)
