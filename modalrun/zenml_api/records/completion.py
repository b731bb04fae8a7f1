"""Read the names of recent runs for shell completion, which has no time to import ZenML.

The source is ZenML's SQLite file, or its server's HTTP interface.
Written against ZenML 0.98.0 (`zen_stores/schemas`, `zen_server/routers/runs_endpoints.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
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
    project = config_files.active_project()
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
    url = config_files.store_url().rstrip("/")
    query = {
        "sort_by": "desc:created",
        "size": str(LIMIT),
        "run_metadata": f"{PREFIX}sandbox_id:contains:sb-",
    }
    project = config_files.active_project()
    if project:
        query["project"] = project
    found = _ask(
        f"{url}/api/v1/runs?{urllib.parse.urlencode(query)}",
        headers={"Authorization": f"Bearer {_token(url)}"},
    )
    return [RecentRun(item["id"], item["name"], item["body"]["status"]) for item in found["items"]]


def _token(url: str) -> str:
    stored_token, stored_key = config_files.stored_credentials(url)
    token = os.environ.get("ZENML_STORE_API_TOKEN") or stored_token
    key = os.environ.get("ZENML_STORE_API_KEY") or stored_key
    if token or not key:
        return token or ""
    answer = _ask(f"{url}/api/v1/login", data={"password": key})
    return str(answer["access_token"])


def _ask(
    url: str, *, headers: Mapping[str, str] | None = None, data: Mapping[str, str] | None = None
) -> Any:
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError(url)
    body = urllib.parse.urlencode(data).encode() if data else None
    request = urllib.request.Request(url, data=body, headers=dict(headers or {}))  # noqa: S310 (checked above)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 (checked above)
        return json.load(answer)
