"""Read what shell completion offers of runs, without ZenML, whose import takes too long.

The source is ZenML's SQLite file, or its server's HTTP interface.
Written against ZenML 0.98.0 (`zen_stores/schemas`, `zen_server/routers/runs_endpoints.py`).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from modalrun.run.metadata import PREFIX
from modalrun.zenml_api import config_files
from modalrun.zenml_api.records.responses import CALL

if TYPE_CHECKING:
    from modalrun.zenml_api.rest.session import Session

LIMIT = 30
STEP_LIMIT = 200
TIMEOUT_SECONDS = 2.0
"""A completion that takes longer is of no use."""

_QUERY = """
SELECT run.id, run.name, run.status, pipeline.name FROM pipeline_run AS run
JOIN pipeline ON pipeline.id = run.pipeline_id
WHERE (:project IS NULL OR run.project_id = :project) AND EXISTS (
    SELECT 1 FROM run_metadata_resource AS link
    JOIN run_metadata AS metadata ON metadata.id = link.run_metadata_id
    WHERE link.resource_id = run.id AND metadata.key = :key
) ORDER BY run.created DESC LIMIT :limit
"""

_STEPS = """
SELECT name FROM step_configuration
WHERE snapshot_id = (SELECT snapshot_id FROM pipeline_run WHERE id = :run)
UNION SELECT name FROM step_run WHERE pipeline_run_id = :run ORDER BY name
"""

_CHILD_STEPS = """
WITH RECURSIVE below (id, label) AS (
    SELECT id, '' FROM pipeline_run WHERE id = :run
    UNION ALL
    SELECT run.id, below.label || replace(run.child_key, :call, '') || '/'
    FROM pipeline_run AS run JOIN below ON run.parent_run_id = below.id
)
SELECT DISTINCT label || step.name FROM step_run AS step
JOIN below ON step.pipeline_run_id = below.id WHERE label != '' ORDER BY 1
"""


class RecentRun(NamedTuple):
    """Identify a run that modalrun has started, with ZenML's status."""

    id: str
    name: str
    status: str
    pipeline: str


def recent_runs() -> list[RecentRun]:
    """Return the newest runs that modalrun has started, newest first; [] if they can't be read."""
    with contextlib.suppress(Exception):
        database = config_files.database()
        if database is None:
            return _runs_from_server()
        project = config_files.active("project")
        values = {
            "project": project.replace("-", "") if project else None,
            "key": f"{PREFIX}sandbox_id",
            "limit": LIMIT,
        }
        return [RecentRun(str(UUID(row[0])), *row[1:]) for row in _rows(database, _QUERY, values)]
    return []


def steps_of(run_id: str, *, of_children: bool) -> list[str]:
    """Return the names of a run's steps: all, or from a server those that have begun.

    Those that can't be read are left out.

    Args:
        of_children: Whether to return the labels of those of child pipelines, too.
    """
    found: list[str] = []
    with contextlib.suppress(Exception):
        database = config_files.database()
        if database is None:
            found += _steps_from_server(_session(), run_id, of_children=of_children)
            return found
        values = {"run": run_id.replace("-", "")}
        found += [name for (name,) in _rows(database, _STEPS, values)]
        if of_children:
            # An older ZenML has no child pipelines.
            values["call"] = CALL
            found += [label for (label,) in _rows(database, _CHILD_STEPS, values)]
    return found


def _steps_from_server(session: Session, run_id: str, *, of_children: bool) -> Iterator[str]:
    project = config_files.active("project")
    steps = session.get("/steps", pipeline_run_id=run_id, size=STEP_LIMIT, project=project)
    yield from dict.fromkeys(item["name"] for item in steps["items"])
    if of_children:
        children = session.get("/runs", parent_run_id=run_id, size=LIMIT, project=project)
        for child in children["items"]:
            label = child["body"]["child_key"].removeprefix(CALL)
            for name in _steps_from_server(session, child["id"], of_children=True):
                yield f"{label}/{name}"


def _rows(path: Path, query: str, values: dict[str, Any]) -> list[Any]:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=TIMEOUT_SECONDS)) as connection:
        return connection.execute(query, values).fetchall()


def _session() -> Session:
    from requests.adapters import HTTPAdapter

    from modalrun.zenml_api.rest.session import Session
    from modalrun.zenml_api.rest.settings import server_settings

    settings = replace(server_settings(), timeout=TIMEOUT_SECONDS)
    return Session(settings, config_files.folder(), adapter=HTTPAdapter())


def _runs_from_server() -> list[RecentRun]:
    found = _session().get(
        "/runs",
        sort_by="desc:created",
        size=LIMIT,
        hydrate=True,
        run_metadata=f"{PREFIX}sandbox_id:contains:sb-",
        project=config_files.active("project"),
    )
    return [
        RecentRun(
            item["id"], item["name"], item["body"]["status"], item["resources"]["pipeline"]["name"]
        )
        for item in found["items"]
    ]
