"""Convert ZenML's responses to records, from the JSON that its server sends. Does not import ZenML.

Written against ZenML 0.98.0 (`models/v2/core`). A response of another shape raises KeyError,
TypeError, ValueError or AttributeError.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import MAXYEAR, MINYEAR, datetime, timezone
from typing import Any, Generic, TypeVar

from modalrun.run.artifacts import Artifact
from modalrun.run.failure import Failure, read_failure
from modalrun.run.metadata import (
    TRIES_KEY,
    Announced,
    RunMetadata,
    StepMetadata,
    from_metadata,
    wrong_keys,
)
from modalrun.run.records import Named, RunRecord, StepRecord
from modalrun.run.usage import usage_from_metadata

Json = dict[str, Any]
T = TypeVar("T")

ENDED = ("failed", "retrying", "stopped")
"""ZenML's statuses of a step whose last attempt has ended for a reason."""

STOPPED = frozenset({"stopping", "stopped"})
"""ZenML's statuses of a run that was stopped, whether or not its steps have ended."""

CALL = "pipeline:"
"""What precedes the name of a child pipeline (`dynamic/runner.py:165`, 0.95.0)."""

_EPOCH = datetime.fromtimestamp(0, timezone.utc)


@dataclass(frozen=True, kw_only=True)
class StoredRun(RunRecord):
    """A run as ZenML stores it, with what only this package needs.

    Attributes:
        project: The id of its project.
        deployment: The id of its snapshot; None if that was deleted.
        values: All its metadata; None if they were not asked for, or ZenML can't decode them.
        orchestrator_run_id: What ties its steps to it; None also where `values` is.
        call: What the function of its parent calls it: "inner", or "inner_2" the second time.
    """

    project: str
    deployment: str | None
    values: Mapping[str, Any] | None = field(repr=False, compare=False)
    orchestrator_run_id: str | None
    call: str = ""


@dataclass(frozen=True, kw_only=True)
class StoredStep(StepRecord):
    """A step's attempt as ZenML stores it, with failure and metadata if they were asked for.

    Attributes:
        created: When its record was created.
        run: The id of its run; None where metadata were not asked for.
        heartbeat: When its process last told ZenML that it runs, if it does so at all.
        environment: The variables of its own and of the pipeline, if metadata were asked for.
        tries: The attempts of a step whose last retries did not come, with its last record.
    """

    created: datetime
    run: str | None
    heartbeat: datetime | None = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    tries: int | None = None


@dataclass(frozen=True)
class StoredDeployment:
    """A snapshot as ZenML stores it.

    Attributes:
        steps: The names of all steps in graph order, and what each of them waits for; None
            if its pipeline is dynamic.
        pipeline: The configuration of the pipeline.
        environment: What is known of the process that compiled it.
        source: Its pipeline as `module:function`; None where that is not known.
    """

    steps: Mapping[str, tuple[str, ...]] | None
    pipeline: Json
    environment: Json
    source: str | None = None


class Link(str):
    """A value of metadata that ZenML's dashboard shows as a link."""


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list, and how many pages there are."""

    items: list[T]
    pages: int


def stored_run(run: Json, url: str | None) -> StoredRun:
    """Convert ZenML's response for a run.

    Args:
        url: The run's page on ZenML's dashboard; None if there is no dashboard.
    """
    body, metadata, resources = run["body"], run["metadata"], run["resources"]
    pipeline, stack, snapshot = (resources[name] for name in ("pipeline", "stack", "snapshot"))
    user, parent = resources.get("user"), resources.get("parent_run")
    values = metadata["run_metadata"] if metadata is not None else {}
    known = metadata or {"start_time": None, "end_time": None, "orchestrator_run_id": None}
    status, reason = body["status"], body["status_reason"]
    place = from_metadata(RunMetadata, values)
    dynamic = snapshot is not None and snapshot["body"]["is_dynamic"]
    # ZenML computes a status from the steps for static pipelines only. Without a deployment it
    # takes no reason.
    computed = snapshot is not None and not dynamic
    failing = status == "failed" and not reason and place is not None and computed
    end = _utc(known["end_time"])
    if status == "failed":
        end = None if failing else _end(end, place)
    if end is not None and place is not None and place.lost_at is not None:
        end = min(end, datetime.fromtimestamp(place.lost_at, timezone.utc))
    return StoredRun(
        id=run["id"],
        name=run["name"],
        pipeline=pipeline["name"] if pipeline is not None else "",
        status="running" if failing else status,
        created=_utc(body["created"]) or _EPOCH,
        start=_utc(known["start_time"]),
        end=end,
        reason=reason,
        metadata=place,
        announced=from_metadata(Announced, values),
        stack=None if stack is None else Named(stack["id"], stack["name"]),
        user=None if user is None else Named(user["id"], user["name"]),
        url=url,
        wrong_metadata=("all",) if metadata is None else wrong_keys(values),
        project=body["project_id"],
        deployment=None if snapshot is None else snapshot["id"],
        failing=failing,
        starts_nothing=failing and not body["in_progress"],
        dynamic=dynamic,
        parent=parent["id"] if parent is not None else None,
        root=body.get("root_run_id"),
        values=None if metadata is None else values,
        orchestrator_run_id=known["orchestrator_run_id"],
        call=(body.get("child_key") or "").removeprefix(CALL),
    )


def _end(recorded: datetime | None, place: RunMetadata | None) -> datetime | None:
    """Return the end of a failed run.

    ZenML has that of the first failed step, or none if there are steps that never begin
    (`pipeline_run_schemas.py:1143`, 0.98.0).
    """
    if place is None or place.ended is None:
        return recorded
    last = datetime.fromtimestamp(place.ended, timezone.utc)
    # The run may have gone on after an earlier end.
    return last if recorded is None else max(recorded, last)


def stored_step(step: Json) -> StoredStep:
    """Convert ZenML's response for a step's attempt."""
    body, metadata = step["body"], step["metadata"]
    status = body["status"]
    return StoredStep(
        name=step["name"],
        status=status,
        attempt=body["version"],
        start=_utc(body["start_time"]),
        end=_utc(body["end_time"]),
        failure=_failure(metadata["exception_info"]) if metadata and status in ENDED else None,
        metadata=from_metadata(StepMetadata, metadata["run_metadata"]) if metadata else None,
        id=step["id"],
        upstream=tuple(metadata["spec"]["upstream_steps"]) if metadata else (),
        usage=usage_from_metadata(metadata["run_metadata"]) if metadata else None,
        outputs=tuple(_outputs(step["name"], step.get("resources"))),
        created=_utc(body["created"]) or _EPOCH,
        run=metadata["pipeline_run_id"] if metadata else None,
        heartbeat=_utc(body["latest_heartbeat"]),
        environment=metadata["config"]["environment"] if metadata else {},
        tries=metadata["run_metadata"].get(TRIES_KEY) if metadata else None,
    )


def _outputs(step: str, resources: Json | None) -> Iterator[Artifact]:
    """Yield what an attempt has made; ZenML answers with it where it lists steps."""
    for output, versions in ((resources or {}).get("outputs") or {}).items():
        for version in versions:
            body = version["body"]
            kind = body["data_type"]["attribute"] or body["data_type"]["module"]
            name, number = body["artifact"]["name"], str(body["version"])
            yield Artifact(step, output, name, number, kind, body["uri"])


def stored_deployment(snapshot: Json) -> StoredDeployment:
    """Convert ZenML's response for a snapshot."""
    metadata = snapshot["metadata"]
    specification = metadata["pipeline_spec"]
    fixed = not snapshot["body"]["is_dynamic"] and specification is not None
    # The specification of the pipeline names every step without its configuration.
    steps = None
    if fixed:
        steps = {s["invocation_id"]: tuple(s["upstream_steps"]) for s in specification["steps"]}
    source = (specification or {}).get("source") or {}
    return StoredDeployment(
        steps,
        metadata["pipeline_configuration"],
        metadata["client_environment"],
        f"{source['module']}:{source['attribute']}" if source.get("attribute") else None,
    )


def _failure(info: Json | None) -> Failure | None:
    """Return why a step has failed: its exception, or what was stored for it."""
    return read_failure(info["traceback"], info["source"], info["message"]) if info else None


def encoded_time(seconds: float | None = None) -> str:
    """Encode a time as ZenML does: in UTC, without a zone.

    Args:
        seconds: Seconds since 1970; None for now.
    """
    moment = time.time() if seconds is None else seconds
    return datetime.fromtimestamp(moment, timezone.utc).replace(tzinfo=None).isoformat()


def _utc(moment: str | None) -> datetime | None:
    """Add the time zone that ZenML leaves out; None for a year that no other zone may have."""
    found = datetime.fromisoformat(moment) if moment is not None else None
    if found is None or not MINYEAR < found.year < MAXYEAR:
        return None
    return found.replace(tzinfo=timezone.utc)
