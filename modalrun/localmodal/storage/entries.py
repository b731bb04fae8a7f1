"""Store the values of queues and dicts under keys; the values of a key expire together.

A queue has many values for each of its partitions, a dict one for each of its keys. Times are
seconds since 1970. What has expired is never returned.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from modalrun.localmodal.storage.disk import Disk

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, key BLOB NOT NULL,
    value BLOB NOT NULL, expires_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS entries_by_key ON entries (owner, key, number);
"""
_PAGE = 50


class Entries:
    """The values of all queues and dicts. Every write is on disk when the method returns."""

    def __init__(self, db: sqlite3.Connection, disk: Disk) -> None:
        self._db = db
        self._disk = disk
        db.executescript(_SCHEMA)

    def put(
        self, owner: str, pairs: Iterable[tuple[bytes, bytes]], expires_at: float, *, replace: bool
    ) -> None:
        """Add keys and values, all or none; with `replace`, instead of what their keys have.

        With the newest value of a key expire all. What is replaced keeps its number, so that
        nobody who reads pages meanwhile gets a key twice.
        """
        self._disk.check()
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for key, value in pairs:
                update = "UPDATE entries SET value = ?, expires_at = ? WHERE owner = ? AND key = ?"
                if replace and self._db.execute(update, (value, expires_at, owner, key)).rowcount:
                    continue
                self._db.execute(
                    "INSERT INTO entries (owner, key, value, expires_at) VALUES (?, ?, ?, ?)",
                    (owner, key, value, expires_at),
                )

    def values(
        self, owner: str, key: bytes, now: float, *, after: int = 0, limit: int = 1
    ) -> list[tuple[int, bytes]]:
        """Return the oldest values of a key after a number, with their numbers."""
        self._expire(owner, now, key)
        return self._db.execute(
            "SELECT number, value FROM entries WHERE owner = ? AND key = ? AND number > ?"
            " ORDER BY number LIMIT ?",
            (owner, key, after, limit),
        ).fetchall()

    def sizes(self, owner: str, key: bytes, now: float) -> tuple[int, int]:
        """Return how many values a key has, and their bytes."""
        self._expire(owner, now, key)
        query = "SELECT count(*), total(length(value)) FROM entries WHERE owner = ? AND key = ?"
        count, size = self._db.execute(query, (owner, key)).fetchone()
        return int(count), int(size)

    def totals(self, owner: str, now: float) -> tuple[int, int]:
        """Return how many keys and how many values there are."""
        self._expire(owner, now)
        query = "SELECT count(DISTINCT key), count(*) FROM entries WHERE owner = ?"
        keys, values = self._db.execute(query, (owner,)).fetchone()
        return int(keys), int(values)

    def page(self, owner: str, now: float, after: int) -> list[tuple[int, bytes, bytes]]:
        """Return numbers, keys and values of a dict after a number, oldest first."""
        return self._db.execute(
            "SELECT number, key, value FROM entries WHERE owner = ? AND number > ?"
            " AND expires_at > ? ORDER BY number LIMIT ?",
            (owner, after, now, _PAGE),
        ).fetchall()

    def keep(self, owner: str, key: bytes, expires_at: float, unless_after: float) -> None:
        """Let a key expire later, unless it expires after a time anyway."""
        self._db.execute(
            "UPDATE entries SET expires_at = ? WHERE owner = ? AND key = ? AND expires_at <= ?",
            (expires_at, owner, key, unless_after),
        )

    def remove(self, owner: str, key: bytes | None = None, *, until: int | None = None) -> None:
        """Remove all values, or those of a key, or the oldest ones of a key until a number."""
        if key is None:
            self._db.execute("DELETE FROM entries WHERE owner = ?", (owner,))
        else:
            self._db.execute(
                "DELETE FROM entries WHERE owner = ? AND key = ? AND number <= ifnull(?, number)",
                (owner, key, until),
            )

    def _expire(self, owner: str, now: float, key: bytes | None = None) -> None:
        # Of a grouped row with max(), SQLite returns the other columns of that row.
        self._db.execute(
            "DELETE FROM entries WHERE owner = ?1 AND key IN (SELECT key FROM (SELECT key,"
            " expires_at, max(number) FROM entries WHERE owner = ?1 AND key = ifnull(?2, key)"
            " GROUP BY key) WHERE expires_at <= ?3)",
            (owner, key, now),
        )
