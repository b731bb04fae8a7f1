"""Read what shell completion offers of the steps of a run and of its child pipelines."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from modalrun.zenml_api import config_files
from modalrun.zenml_api.records import completion
from tests.unit.fakes import RUN_ID

SCHEMA = """
CREATE TABLE pipeline_run (id TEXT, snapshot_id TEXT, parent_run_id TEXT, child_key TEXT);
CREATE TABLE step_run (pipeline_run_id TEXT, name TEXT);
CREATE TABLE step_configuration (snapshot_id TEXT, name TEXT);
INSERT INTO step_run VALUES ('{run}', 'load'), ('c1', 'inc'), ('c1', 'inc'), ('c2', 'inc');
INSERT INTO pipeline_run VALUES ('{run}', 's', NULL, NULL),
    ('c1', 't', '{run}', 'pipeline:inner_2'), ('c2', 't', 'c1', 'pipeline:deep');
"""
LABELS = ["load", "inner_2/deep/inc", "inner_2/inc"]


def test_steps_of_child_pipelines_in_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "zenml.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(SCHEMA.format(run=RUN_ID.replace("-", "")))
    monkeypatch.setattr(config_files, "database", lambda: path)
    assert completion.steps_of(RUN_ID, of_children=True) == LABELS
    assert completion.steps_of(RUN_ID, of_children=False) == ["load"]
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE pipeline_run DROP COLUMN child_key")
    assert completion.steps_of(RUN_ID, of_children=True) == ["load"]


def test_steps_of_child_pipelines_on_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {RUN_ID: ["load"], "c1": ["inc", "inc"], "c2": ["inc"]}
    children = {RUN_ID: [("c1", "pipeline:inner_2")], "c1": [("c2", "pipeline:deep")]}

    class Session:
        def get(self, path: str, **filters: Any) -> dict[str, Any]:
            if path == "/steps":
                return {"items": [{"name": name} for name in steps[filters["pipeline_run_id"]]]}
            found = children.get(filters["parent_run_id"], [])
            return {"items": [{"id": one, "body": {"child_key": key}} for one, key in found]}

    monkeypatch.setattr(config_files, "database", lambda: None)
    monkeypatch.setattr(config_files, "active", lambda _: None)
    monkeypatch.setattr(completion, "_session", Session)
    assert sorted(completion.steps_of(RUN_ID, of_children=True)) == sorted(LABELS)
