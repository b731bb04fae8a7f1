"""What is known of a run as one versioned JSON object."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from modalrun.run.records import RunRecord, StepRecord
from modalrun.run.status import RunStatus

VERSION = 1


def as_json(view: RunStatus) -> str:
    """A run for programs: times in UTC (RFC 3339), durations in seconds, memory in MiB."""
    run, facts, modal = view.run, view.run.metadata, view.modal
    document = {
        "format": "modalrun-status",
        "version": VERSION,
        **run_fields(run),
        "state": view.state,
        "over": view.over,
        "exit_code": view.exit_code,
        "headline": view.headline,
        "zenml": {"status": run.status, "reason": run.reason, "url": run.url},
        "app": {"name": facts.app, "id": facts.app_id, "url": app_url(run)} if facts else None,
        "sandbox": {
            "id": facts.sandbox_id,
            "url": facts.sandbox_url,
            "presence": modal.sandbox,
            "exit_code": modal.exit_code,
            "timeout": facts.timeout,
            "gpu": facts.gpu,
            "cpu": facts.cpu,
            "memory_mib": facts.memory,
        }
        if facts
        else None,
        "steps": [_step(step, run) for step in view.steps],
        "notes": [{"text": note.text, "commands": list(note.commands)} for note in view.notes],
    }
    return json.dumps(document, indent=2)


def run_fields(run: RunRecord) -> dict[str, Any]:
    """What 'status' and 'list' say of a run in the same words."""
    facts = run.metadata
    return {
        "id": run.id,
        "name": run.name,
        "pipeline": run.pipeline,
        "mode": facts.mode if facts else None,
        "target": facts.target if facts else None,
        "stack": {"id": run.stack.id, "name": run.stack.name} if run.stack else None,
        "environment": facts.environment if facts else None,
        "created": moment(run.created),
        "started": moment(run.start),
        "ended": moment(run.end),
        "duration": seconds(run.start, run.end),
    }


def app_url(run: RunRecord) -> str | None:
    """The app's page on Modal's dashboard (`modal/app.py:487`, 1.6.4); None on the local server."""
    facts = run.metadata
    return f"https://modal.com/id/{facts.app_id}" if facts and facts.target == "modal" else None


def _step(step: StepRecord, run: RunRecord) -> dict[str, Any]:
    facts = step.metadata or run.metadata
    ran = step.status != "not run"
    return {
        "name": step.name,
        "state": step.status,
        "attempt": step.attempt if ran else None,
        "started": moment(step.start),
        "ended": moment(step.end),
        "duration": seconds(step.start, step.end),
        "gpu": facts.gpu if facts else None,
        "cpu": facts.cpu if facts else None,
        "memory_mib": facts.memory if facts else None,
        "sandbox": (facts.sandbox_id or None) if facts and ran else None,
        "exit_code": step.metadata.exit_code if step.metadata else None,
        "exit_reason": exit_reason(step),
        "infrastructure_retries": step.metadata.infrastructure_retries if step.metadata else None,
    }


def exit_reason(step: StepRecord) -> str | None:
    """Why a step ended as it did, where that is not "completed"."""
    return (step.metadata.exit_reason if step.metadata else None) or step.reason


def moment(at: datetime | None) -> str | None:
    """A moment of ZenML's, which are in UTC without saying so."""
    return None if at is None else f"{at.replace(tzinfo=None).isoformat()}Z"


def seconds(start: datetime | None, end: datetime | None) -> float | None:
    """The time between two moments; None where one of them is not there yet."""
    return None if start is None or end is None else round((end - start).total_seconds(), 3)
