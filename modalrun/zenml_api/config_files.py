"""The user's ZenML configuration, as far as it matters before ZenML is imported."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer
import yaml

from modalrun.errors import ConnectionLostError
from modalrun.util.reachability import connection_problem

CONFIG_PATH = "ZENML_CONFIG_PATH"
LOCAL_STORES_PATH = "ZENML_LOCAL_STORES_PATH"
STORE_PREFIX = "ZENML_STORE_"
STORE_URL = "ZENML_STORE_URL"
ACTIVE_PROJECT = "ZENML_ACTIVE_PROJECT_ID"
DISABLE_MIGRATION = "DISABLE_DATABASE_MIGRATION"

_FILES = ("config.yaml", "credentials.yaml")


def folder() -> Path:
    """The folder that ZenML keeps its configuration in (`utils/io_utils.py`, ZenML 0.98.0)."""
    return Path(os.environ.get(CONFIG_PATH) or typer.get_app_dir("zenml"))


def require_server() -> None:
    """Find out within seconds that the ZenML server doesn't answer, where there is one.

    Raises:
        ConnectionLostError: Nothing answers at its address.
    """
    url = store_url()
    if urlsplit(url).scheme not in {"http", "https"}:
        return
    problem = connection_problem(url)
    if problem is not None:
        raise ConnectionLostError(
            f"The ZenML server at {url} can't be reached: {problem}.",
            effect="Nothing was created.",
            hint="Check the network and 'zenml status'.",
        ) from problem


def protect() -> Path | None:
    """Keep ZenML from writing a store that the environment names into the user's configuration.

    With `ZENML_STORE_URL` set, ZenML stores that address in `config.yaml` and switches the user's
    own `zenml` command to it (facts: ZenML 0.98.0). This process then works on a copy.

    Returns:
        The folder of the copy, for the caller to remove; None if none was needed.
    """
    if not any(name.startswith(STORE_PREFIX) for name in os.environ):
        return None
    original = folder()
    copy = Path(tempfile.mkdtemp(prefix="modalrun-zenml-"))
    for name in _FILES:
        if (original / name).is_file():
            shutil.copy2(original / name, copy / name)
    os.environ.setdefault(LOCAL_STORES_PATH, str(original / "local_stores"))
    os.environ[CONFIG_PATH] = str(copy)
    return copy


def store_url() -> str:
    """The address of ZenML's store, from the environment or the configuration; "" for none."""
    return os.environ.get(STORE_URL) or _configured_url()


def database() -> Path | None:
    """The SQLite file that ZenML uses here; None with a server or another database."""
    _, found, path = store_url().partition("sqlite:///")
    return Path(path) if found else None


def active_project() -> str | None:
    """The id of the active project, where it is known without asking ZenML."""
    found = os.environ.get(ACTIVE_PROJECT) or _read("config.yaml").get("active_project_id")
    return str(found) if found else None


def stored_token(url: str) -> str | None:
    """The token that ZenML has stored for a server (`login/credentials.py`, 0.98.0)."""
    token = _credentials(url).get("api_token")
    return str(token["access_token"]) if token else None


def stored_api_key(url: str) -> str | None:
    """The API key that ZenML has stored for a server."""
    key = _credentials(url).get("api_key")
    return str(key) if key else None


def _credentials(url: str) -> dict[str, Any]:
    found = _read("credentials.yaml").get(url)
    return found if isinstance(found, dict) else {}


def skip_migration() -> None:
    """Spare this process ZenML's look for migrations (0.2 s) where there can be none.

    The revision of a database that is up to date is the version of ZenML
    (`zen_stores/migrations/versions`, 0.98.0).
    """
    if database_version() == version("zenml"):
        os.environ.setdefault(DISABLE_MIGRATION, "true")


def database_version() -> str | None:
    """The version of ZenML that the SQLite file is up to date with; None where there is none."""
    path = database()
    if path is None or not path.is_file():
        return None
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as held,
    ):
        found = held.execute("SELECT version_num FROM alembic_version").fetchall()
        return str(found[0][0]) if len(found) == 1 else None
    return None


def _configured_url() -> str:
    store = _read("config.yaml").get("store")
    return str(store.get("url") or "") if isinstance(store, dict) else ""


def _read(name: str) -> dict[str, Any]:
    """A file of ZenML's configuration folder; empty where it is missing or broken."""
    try:
        found = yaml.safe_load((folder() / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        # ZenML makes the file if there is none, and complains about a broken one itself.
        return {}
    return found if isinstance(found, dict) else {}
