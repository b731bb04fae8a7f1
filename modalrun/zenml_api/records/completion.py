"""Read the names of recent runs for shell completion, which has no time to import ZenML.

The source is ZenML's SQLite file, or its server's HTTP interface.
Written against ZenML 0.98.0 (`zen_stores/schemas`, `zen_server/routers/runs_endpoints.py`).
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from modalrun.run.metadata import PREFIX
from modalrun.zenml_api import config_files

LIMIT = 30
TIMEOUT_SECONDS = 2.0
"""A completion that takes longer is of no use."""

_QUERY = """
SELECT run.id, run.name, run.status FROM pipeline_run AS run
WHERE (:project IS NULL OR run.project_id = :project) AND EXISTS (
    SELECT 1 FROM run_metadata_resource AS link
    JOIN run_metadata AS metadata ON metadata.id = link.run_metadata_id
    WHERE link.resource_id = run.id AND metadata.key = :key
) ORDER BY run.created DESC LIMIT :limit
"""


class RecentRun(NamedTuple):
    """Identify a run that modalrun has started, with ZenML's status."""

    id: str
    name: str
    status: str


def recent_runs() -> list[RecentRun]:
    """Return the newest runs that modalrun has started, newest first; [] if they can't be read."""
    with contextlib.suppress(Exception):
        database = config_files.database()
        return _from_server() if database is None else _from_database(database)
    return []


def _from_database(path: Path) -> list[RecentRun]:
    project = config_files.active("project")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=TIMEOUT_SECONDS)) as connection:
        rows = connection.execute(
            _QUERY,
            {
                "project": project.replace("-", "") if project else None,
                "key": f"{PREFIX}sandbox_id",
                "limit": LIMIT,
            },
        )
        return [RecentRun(str(UUID(run_id)), name, status) for run_id, name, status in rows]


def _from_server() -> list[RecentRun]:
    from requests.adapters import HTTPAdapter

    from modalrun.zenml_api.rest.session import Session
    from modalrun.zenml_api.rest.settings import server_settings

    settings = replace(server_settings(), timeout=TIMEOUT_SECONDS)
    session = Session(settings, config_files.folder(), adapter=HTTPAdapter())
    found = session.get(
        "/runs",
        sort_by="desc:created",
        size=LIMIT,
        run_metadata=f"{PREFIX}sandbox_id:contains:sb-",
        project=config_files.active("project"),
    )
    return [RecentRun(item["id"], item["name"], item["body"]["status"]) for item in found["items"]]
