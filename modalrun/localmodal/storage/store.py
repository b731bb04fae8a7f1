"""Store the server's records in SQLite (WAL mode, one writer); a `kill -9` loses nothing."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modalrun.localmodal.storage.disk import Disk
from modalrun.localmodal.storage.entries import Entries
from modalrun.localmodal.storage.ids import Clock

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT NOT NULL, id TEXT NOT NULL, environment TEXT NOT NULL, name TEXT NOT NULL,
    created_at REAL NOT NULL, document TEXT NOT NULL, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS objects_by_name ON objects (kind, environment, name);
CREATE TABLE IF NOT EXISTS sandboxes (
    id TEXT PRIMARY KEY, task_id TEXT NOT NULL UNIQUE, app_id TEXT NOT NULL, name TEXT NOT NULL,
    idempotency_key TEXT NOT NULL, created_at REAL NOT NULL, finished_at REAL NOT NULL,
    document TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sandboxes_by_time ON sandboxes (created_at);
CREATE INDEX IF NOT EXISTS sandboxes_by_app ON sandboxes (app_id, created_at);
CREATE INDEX IF NOT EXISTS sandboxes_by_key ON sandboxes (idempotency_key);
"""


@dataclass
class Stored:
    """An object of any kind but sandboxes. Times are seconds since 1970."""

    kind: str
    id: str
    created_at: float
    environment: str = ""
    name: str = ""
    document: dict[str, Any] = field(default_factory=dict)


@dataclass
class SandboxRecord:
    """A sandbox's request and its end.

    `status` is a `GenericResult.GenericStatus`, 0 while the sandbox runs. Times are seconds since
    1970, 0.0 for "not yet". `variables` has the names of environment variables only; `volumes` maps
    mount paths to names. `scheduled` says whether the sandbox has a place, and so a task.
    """

    id: str
    task_id: str
    app_id: str
    app_name: str
    environment: str
    created_at: float
    name: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    image_id: str = ""
    workdir: str = ""
    variables: list[str] = field(default_factory=list)
    timeout_secs: int = 0
    idle_timeout_secs: int = 0
    milli_cpu: int = 0
    milli_cpu_max: int = 0
    memory_mb: int = 0
    memory_mb_max: int = 0
    gpu: str = ""
    gpu_count: int = 0
    cloud: str = ""
    regions: list[str] = field(default_factory=list)
    volumes: dict[str, str] = field(default_factory=dict)
    idempotency_key: str = ""
    scheduled: bool = True
    started_at: float = 0.0
    finished_at: float = 0.0
    status: int = 0
    exitcode: int = 0
    exception: str = ""

    def summary(self) -> dict[str, Any]:
        """Summarize the sandbox for `modalrun local status`, without secret values."""
        gpu = f"{self.gpu}:{self.gpu_count}" if self.gpu_count > 1 else self.gpu
        return {
            "id": self.id,
            "task_id": self.task_id,
            "name": self.name or None,
            "app_id": self.app_id,
            "app": self.app_name,
            "environment": self.environment,
            "tags": self.tags,
            "created_at": self.created_at,
            "scheduled": self.scheduled,
            "started_at": self.started_at or None,
            "timeout_seconds": self.timeout_secs,
            "requested": {
                "cpu": self.milli_cpu / 1000 or None,
                "cpu_limit": self.milli_cpu_max / 1000 or None,
                "memory_mib": self.memory_mb or None,
                "memory_limit_mib": self.memory_mb_max or None,
                "gpu": gpu or None,
                "cloud": self.cloud or None,
                "regions": self.regions,
                "volumes": self.volumes,
            },
        }


class Store:
    """All records of a state folder. Every write is on disk when the method returns.

    Attributes:
        entries: What is in queues and dicts.
        clock: Continues from the last time that is recorded.
    """

    def __init__(
        self, path: Path, disk: Disk | None = None, ahead: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._disk = disk or Disk(path.parent)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        # Otherwise deleted secrets stay readable in free pages.
        self._db.execute("PRAGMA secure_delete=ON")
        self._db.executescript(_SCHEMA)
        self.entries = Entries(self._db, self._disk)
        self.clock = Clock(self._latest(), ahead)

    def close(self) -> None:
        self._db.close()

    def put(self, item: Stored) -> None:
        """Add or replace an object."""
        self._disk.check()
        self._db.execute(
            "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)",
            (
                item.kind,
                item.id,
                item.environment,
                item.name,
                item.created_at,
                json.dumps(item.document),
            ),
        )

    def _objects(self, where: str, *values: object) -> list[Stored]:
        rows = self._db.execute(
            "SELECT kind, id, created_at, environment, name, document FROM objects "  # noqa: S608 (`where` is a literal)
            f"WHERE {where} ORDER BY created_at DESC",
            values,
        )
        return [Stored(row[0], row[1], row[2], row[3], row[4], json.loads(row[5])) for row in rows]

    def get(self, kind: str, object_id: str) -> Stored | None:
        """Return the object with an id."""
        found = self._objects("kind = ? AND id = ?", kind, object_id)
        return found[0] if found else None

    def named(self, kind: str, environment: str, name: str) -> list[Stored]:
        """Return the objects with a name, newest first; apps include stopped ones."""
        return self._objects("kind = ? AND environment = ? AND name = ?", kind, environment, name)

    def all(self, kind: str, environment: str | None = None) -> list[Stored]:
        """Return all objects of a kind, newest first."""
        if environment is None:
            return self._objects("kind = ?", kind)
        return self._objects("kind = ? AND environment = ?", kind, environment)

    def delete(self, kind: str, object_id: str) -> None:
        self._db.execute("DELETE FROM objects WHERE kind = ? AND id = ?", (kind, object_id))

    def delete_all(self, environment: str) -> None:
        """Delete all objects of an environment."""
        self._db.execute("DELETE FROM objects WHERE environment = ?", (environment,))

    def delete_older(self, kind: str, before: float) -> None:
        """Delete the objects of a kind that were created before a time."""
        self._db.execute("DELETE FROM objects WHERE kind = ? AND created_at < ?", (kind, before))

    def count(self, kind: str) -> int:
        row = self._db.execute("SELECT count(*) FROM objects WHERE kind = ?", (kind,)).fetchone()
        return int(row[0])

    def put_sandbox(self, record: SandboxRecord) -> None:
        """Add or replace a sandbox."""
        self._disk.check()
        self._db.execute(
            "INSERT OR REPLACE INTO sandboxes VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.id,
                record.task_id,
                record.app_id,
                record.name,
                record.idempotency_key,
                record.created_at,
                record.finished_at,
                json.dumps(vars(record)),
            ),
        )

    def _sandboxes(self, clause: str, *values: object) -> list[SandboxRecord]:
        query = f"SELECT document FROM sandboxes WHERE {clause}"  # noqa: S608 (a literal)
        rows = self._db.execute(query, values)
        return [SandboxRecord(**json.loads(row[0])) for row in rows]

    def _first(self, clause: str, value: str) -> SandboxRecord | None:
        return next(iter(self._sandboxes(f"{clause} LIMIT 1", value)), None)

    def sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        """Return the sandbox with an id."""
        return self._first("id = ?", sandbox_id)

    def sandbox_of_task(self, task_id: str) -> SandboxRecord | None:
        """Return the sandbox with a task id."""
        return self._first("task_id = ?", task_id)

    def sandbox_of_key(self, key: str) -> SandboxRecord | None:
        """Return the sandbox that a call with this idempotency key created."""
        return self._first("idempotency_key = ?", key) if key else None

    def sandboxes_named(self, app_id: str, name: str) -> list[SandboxRecord]:
        """Return the sandboxes of an app with a name, newest first."""
        return self._sandboxes("app_id = ? AND name = ? ORDER BY created_at DESC", app_id, name)

    def sandboxes_before(
        self, created_before: float, app_ids: list[str] | None, limit: int
    ) -> list[SandboxRecord]:
        """Return sandboxes created before a time, newest first; of some apps or of all (None)."""
        if app_ids is None:
            return self._sandboxes(
                "created_at < ? ORDER BY created_at DESC LIMIT ?", created_before, limit
            )
        marks = ",".join("?" * len(app_ids))
        return self._sandboxes(
            f"app_id IN ({marks}) AND created_at < ? ORDER BY created_at DESC LIMIT ?",
            *app_ids,
            created_before,
            limit,
        )

    def sandboxes_of_app(self, app_id: str, since: float, until: float) -> list[SandboxRecord]:
        """Return the sandboxes of an app that existed between two times, oldest first."""
        return self._sandboxes(
            "app_id = ? AND created_at <= ? AND (finished_at = 0 OR finished_at >= ?) "
            "ORDER BY created_at",
            app_id,
            until,
            since,
        )

    def _latest(self) -> float:
        """Return the last time that is recorded; 0.0 if there is none."""
        row = self._db.execute(
            "SELECT max(coalesce((SELECT max(created_at) FROM objects), 0),"
            " coalesce((SELECT max(max(created_at, finished_at)) FROM sandboxes), 0))"
        ).fetchone()
        return float(row[0])

    def unfinished(self) -> list[SandboxRecord]:
        """Return the sandboxes that are recorded as running."""
        return self._sandboxes("finished_at = 0")

    def finished_before(self, time: float) -> list[SandboxRecord]:
        """Return the sandboxes that ended before a time."""
        return self._sandboxes("finished_at > 0 AND finished_at < ?", time)

    def delete_sandbox(self, sandbox_id: str) -> None:
        self._db.execute("DELETE FROM sandboxes WHERE id = ?", (sandbox_id,))

    def count_sandboxes(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM sandboxes").fetchone()[0])
