"""Convert ZenML's responses: when a failed run has ended, and which pipeline it ran."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from modalrun.run.metadata import RunMetadata, to_metadata
from modalrun.zenml_api.records.responses import stored_deployment, stored_run

PLACE = to_metadata(RunMetadata("local", "pipeline", "app", "ap-1", "sb-1", 600))


def response(status: str, reason: str | None, place: Any, snapshot: Any) -> dict[str, Any]:
    return {
        "id": "id",
        "name": "name",
        "body": {
            "status": status,
            "status_reason": reason,
            "created": "2026-11-29T12:00:00",
            "in_progress": True,
            "project_id": "project",
        },
        "metadata": {
            "run_metadata": place,
            "start_time": None,
            "end_time": None,
            "orchestrator_run_id": None,
        },
        "resources": {"pipeline": None, "stack": None, "snapshot": snapshot},
    }


@pytest.mark.parametrize(
    ("specification", "source"),
    [
        ({"source": {"module": "a.b", "attribute": "c"}, "steps": []}, "a.b:c"),
        ({"source": {"module": "a.b", "attribute": None}, "steps": []}, None),
        ({"source": None, "steps": []}, None),
        (None, None),
    ],
)
def test_a_deployment_knows_its_pipeline(specification: Any, source: str | None) -> None:
    metadata = {"pipeline_configuration": {}, "client_environment": {}}
    found = stored_deployment(
        {
            "body": {"is_dynamic": False},
            "metadata": {"pipeline_spec": specification, **metadata},
        }
    )
    assert found.source == source


def static(*, dynamic: bool = False) -> dict[str, Any]:
    return {"id": "snapshot", "body": {"is_dynamic": dynamic}}


@pytest.mark.parametrize(
    ("status", "reason", "place", "snapshot", "failing"),
    [
        ("failed", None, PLACE, static(), True),
        ("failed", "Step `a` failed.", PLACE, static(), False),
        ("failed", None, PLACE, static(dynamic=True), False),
        ("failed", None, PLACE, None, False),
        ("failed", None, {}, static(), False),
        ("completed", None, PLACE, static(), False),
    ],
    ids=["a step", "the run", "dynamic", "no deployment", "not modalrun's", "completed"],
)
def test_a_failed_run_has_ended_once_it_has_a_reason(
    status: str, reason: str | None, place: Any, snapshot: Any, failing: bool
) -> None:
    run = stored_run(response(status, reason, place, snapshot), None)

    assert run.failing is failing
    assert (run.status, run.zenml_status) == ("running" if failing else status, status)
    assert run.finished is not failing


def test_the_run_of_a_child_pipeline_names_its_parent() -> None:
    answer = response("completed", None, {}, static(dynamic=True))
    assert stored_run(answer, None).parent is None

    answer["resources"]["parent_run"] = {"id": "parent"}
    answer["body"] |= {"root_run_id": "root", "child_key": "pipeline:inner_2"}

    run = stored_run(answer, None)
    assert (run.parent, run.root, run.call) == ("parent", "root", "inner_2")


NOON = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
BY_ZENML = "2026-11-29T12:01:00"


@pytest.mark.parametrize(
    ("status", "reason", "by_zenml", "ended", "lost", "minutes"),
    [
        ("failed", None, BY_ZENML, None, None, None),
        ("failed", "Failed.", BY_ZENML, None, None, 1),
        ("failed", "Failed.", BY_ZENML, 0.5, None, 1),
        ("failed", "Failed.", BY_ZENML, 3, None, 3),
        ("failed", "Failed.", None, 3, None, 3),
        ("failed", "Failed.", None, None, None, None),
        # It was recorded later than the last sign of life.
        ("failed", "Failed.", BY_ZENML, None, 0.5, 0.5),
        ("stopped", "Stopped.", BY_ZENML, None, 0.5, 0.5),
        # ZenML has no end: a step has not begun.
        ("failed", "Failed.", None, None, 0.5, 0.5),
        # It goes on, or has done so since.
        ("running", None, None, 0.5, 0.5, None),
        ("completed", None, BY_ZENML, 0.5, 0.5, 1),
    ],
)
def test_a_run_ends_with_its_last_step_or_sign_of_life(
    *,
    status: str,
    reason: str | None,
    by_zenml: str | None,
    ended: float | None,
    lost: float | None,
    minutes: float | None,
) -> None:
    moments = {"modalrun_ended": ended, "modalrun_lost_at": lost}
    known = {key: NOON.timestamp() + m * 60 for key, m in moments.items() if m is not None}
    answer = response(status, reason, PLACE | known, static())
    answer["metadata"]["end_time"] = by_zenml

    run = stored_run(answer, None)

    assert run.end == (NOON + timedelta(minutes=minutes) if minutes else None)


def test_a_run_that_never_had_a_sandbox_has_an_end() -> None:
    last = {"modalrun_ended": NOON.timestamp()}
    assert stored_run(response("failed", "No GPU.", last, static()), None).end == NOON
