"""ZenML's database as tests read it, whichever it is."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit
from uuid import UUID

from servers.zenml_server import Backend


@dataclass(frozen=True)
class SQLiteRecords:
    """The SQLite file of a local store."""

    file: Path
    step_order: ClassVar[str] = "step_run.created"

    def rows(self, query: str) -> list[Any]:
        """The answer to a query; ids are 32 hexadecimal digits."""
        return sqlite_rows(self.file, query)

    def mine(self, table: str) -> str:
        """What of a table belongs to the test, as a condition."""
        return f"{table}.project_id IS NOT NULL"


@dataclass(frozen=True)
class ServerRecords:
    """The database behind a ZenML server, of which one project is the test's."""

    backend: Backend
    project: str
    # MariaDB's times are whole seconds: of steps created in one, the graph's order decides.
    step_order: ClassVar[str] = (
        "step_run.created, (SELECT MIN(configuration.`index`)"
        " FROM step_configuration AS configuration"
        " WHERE configuration.snapshot_id = step_run.snapshot_id"
        " AND configuration.name = step_run.name), step_run.version"
    )

    def rows(self, query: str) -> list[Any]:
        """The answer to a query; ids are 32 hexadecimal digits."""
        if not self.backend.store_url:
            return sqlite_rows(
                Path(self.backend.config) / "local_stores/default_zen_store/zenml.db", query
            )
        import pymysql

        url = urlsplit(self.backend.store_url)
        connection = pymysql.connect(
            host=str(url.hostname),
            port=int(url.port or 0),
            user=str(url.username),
            password=str(url.password),
            database=url.path.lstrip("/"),
        )
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def mine(self, table: str) -> str:
        """What of a table belongs to the test, as a condition."""
        return f"{table}.project_id = '{UUID(self.project).hex}'"


def sqlite_rows(database: Path, query: str) -> list[Any]:
    """The answer of an SQLite file to a query."""
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        return connection.execute(query).fetchall()
