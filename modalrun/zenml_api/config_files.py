"""Read the user's ZenML configuration and database without importing ZenML."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Literal

import click
import yaml

from modalrun.errors import UsageError

CONFIG_PATH = "ZENML_CONFIG_PATH"
LOCAL_STORES_PATH = "ZENML_LOCAL_STORES_PATH"
STORE_PREFIX = "ZENML_STORE_"
STORE_URL = "ZENML_STORE_URL"
DISABLE_CREDENTIALS = "DISABLE_CREDENTIALS_DISK_CACHING"
DISABLE_MIGRATION = "DISABLE_DATABASE_MIGRATION"

TRUE = frozenset({"1", "y", "yes", "true"})
"""What ZenML takes for yes, in lower case."""

WRITING_SECONDS = 1.0
"""How long another process may take to write ZenML's configuration."""


def folder() -> Path:
    """Return the folder of ZenML's configuration (`utils/io_utils.py`, ZenML 0.98.0)."""
    return Path(os.environ.get(CONFIG_PATH) or click.get_app_dir("zenml"))


def require_readable() -> None:
    """Check ZenML's configuration, which ZenML replaces by a new one if it is not YAML.

    Raises:
        UsageError: It is damaged, or can't be read.
    """
    path = folder() / "config.yaml"
    until = time.monotonic() + WRITING_SECONDS
    # Another process may be writing it: ZenML empties it first.
    while (problem := _problem(path)) is not None and time.monotonic() < until:
        time.sleep(0.05)
    if problem is not None:
        raise UsageError(
            f"ZenML's configuration {path} {problem}.",
            effect="Nothing was created.",
            hint="Restore it; or delete it, and log in or choose the stack again.",
        )


def _problem(path: Path) -> str | None:
    """Return what is wrong with ZenML's configuration; None if nothing is, or there is none."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"can't be read: {error.strerror}"
    except (ValueError, yaml.YAMLError):
        return "is not YAML"
    if isinstance(found, dict) and isinstance(found.get("store"), dict | None):
        return None
    return "is empty" if found is None else "is damaged"


def store_url() -> str:
    """Return the address of ZenML's store, from the environment or the configuration.

    "" if there is none yet.
    """
    store = configuration().get("store")
    configured = store.get("url") if isinstance(store, dict) else None
    return os.environ.get(STORE_URL) or str(configured or "")


def has_server() -> bool:
    """Return whether ZenML's store is a server."""
    return store_url().startswith(("http://", "https://"))


def database() -> Path | None:
    """Return the SQLite file that ZenML uses; None with a server or another database."""
    _, found, path = store_url().partition("sqlite:///")
    return Path(path) if found else None


def active(kind: Literal["project", "stack"]) -> str | None:
    """Return the id of the active project or stack; None if only ZenML itself can find it.

    A repository, the next folder upwards with a `.zen` in it, has its own.
    """
    found = os.environ.get(f"ZENML_ACTIVE_{kind.upper()}_ID")
    if not found:
        given = os.environ.get("ZENML_REPOSITORY_PATH")
        places = [Path(given)] if given else [Path.cwd(), *Path.cwd().parents]
        repository = next((p / ".zen" for p in places if (p / ".zen").is_dir()), folder())
        found = _read(repository / "config.yaml").get(f"active_{kind}_id")
    return str(found) if found else None


def local_stores() -> str:
    """Return the folder of local artifact stores (`config/global_config.py`, ZenML 0.98.0)."""
    return os.environ.get(LOCAL_STORES_PATH) or str(folder() / "local_stores")


def configuration() -> dict[str, Any]:
    """Return ZenML's configuration; {} if there is none."""
    return _read(folder() / "config.yaml")


def credentials(url: str) -> dict[str, Any]:
    """Return what ZenML has stored to log in at a server (`login/credentials.py`, 0.98.0)."""
    found = {} if is_true(DISABLE_CREDENTIALS) else _read(folder() / "credentials.yaml").get(url)
    return found if isinstance(found, dict) else {}


def is_true(variable: str) -> bool:
    """Return whether a variable of the environment says yes, as ZenML reads it."""
    return os.environ.get(variable, "").lower() in TRUE


def database_version() -> str | None:
    """Return the ZenML version that the SQLite file is migrated to; None if there is no file."""
    path = database()
    if path is None or not path.is_file():
        return None
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as connection,
    ):
        found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        return str(found[0][0]) if len(found) == 1 else None
    return None


def _read(path: Path) -> dict[str, Any]:
    """Return a file of ZenML's configuration; {} if it is missing or broken."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        # ZenML creates a missing file, and reports a broken one itself.
        return {}
    return found if isinstance(found, dict) else {}
