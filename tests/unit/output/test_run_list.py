"""The list of runs for people."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from decimal import Decimal

import pytest

from modalrun.observe.list_runs import ListedRun
from modalrun.output.run_list import as_json, print_list
from modalrun.run.metadata import RunMetadata
from modalrun.run.records import RunRecord

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
REASON = "Step `train` failed: KeyError: 'rate' (train.py:3)"
FOUND = [
    ListedRun(RunRecord("11111111-a", "first", "training", "failed", NOON, reason=REASON), None),
    ListedRun(RunRecord("22222222-b", "second", "training", "stopped", NOON, reason="Why."), None),
]


def test_a_failed_run_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    print_list(FOUND)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["run", "11111111", "Step", "22222222"]
    assert lines[2] == f"{' ' * 10}{REASON}"
    assert [run["reason"] for run in json.loads(as_json(FOUND))["runs"]] == [REASON, "Why."]


def test_the_run_of_a_child_pipeline_says_whose_part_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    metadata = RunMetadata("local", "per_step", "app", "ap-1", "sb-1", timeout=3600)
    root = RunRecord("22222222-b", "outer", "outer", "running", NOON, metadata=metadata)
    child = RunRecord("11111111-a", "inner", "inner", "running", NOON, parent=root.id)
    listed = ListedRun(child, Decimal(0), root)
    print_list([listed])
    _, row, part = capsys.readouterr().out.splitlines()
    assert row.split()[3:6] == ["running", "per_step", "local"] and row.endswith(" -")
    assert part == " " * 10 + "part of outer (22222222)"
    (told,) = json.loads(as_json([listed]))["runs"]
    assert (told["mode"], told["target"], told["parent"]) == ("per_step", "local", root.id)


def test_a_reason_of_several_lines_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "ModuleNotFoundError: No module named 'pandas'\nbelow"
    run = RunRecord("11111111-a", "first", "training", "failed", NOON, reason=reason)
    print_list([ListedRun(run, None)])
    _, _, told, empty, hint = capsys.readouterr().out.splitlines()
    assert told == " " * 10 + "ModuleNotFoundError: No module named 'pandas'"
    assert (empty, hint) == ("", "next: 'modalrun status 11111111' says what helps")
    print_list([ListedRun(run, None), ListedRun(replace(run, id="22222222-b"), None)])
    shown = capsys.readouterr().out
    assert shown.count("No module named 'pandas'") == 2
    assert shown.splitlines()[-2:] == ["", "next: 'modalrun status RUN' says what helps"]


def test_the_time_of_a_run_without_an_end_is_within_its_timeout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    metadata = RunMetadata("modal", "pipeline", "app", "ap-1", "sb-1", timeout=3600)
    lost = RunRecord("11111111-a", "a", "training", "running", NOON, metadata=metadata)
    paused = replace(lost, status="paused")
    print_list([ListedRun(lost, None), ListedRun(paused, None)])
    _, first, second = capsys.readouterr().out.splitlines()
    assert "1 h 00 m" in first and " h " not in second
