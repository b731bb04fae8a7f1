"""Records made of ZenML's responses."""

from __future__ import annotations

from datetime import datetime, timezone

from zenml.enums import ExecutionStatus

from modalrun.run.records import FINISHED, SUCCESSFUL
from modalrun.zenml_api.records import responses


def test_the_final_statuses_are_zenmls() -> None:
    assert {status.value for status in ExecutionStatus if status.is_finished} == FINISHED
    assert {status.value for status in ExecutionStatus if status.is_successful} == {*SUCCESSFUL}


def test_times_get_the_zone_that_zenml_leaves_out() -> None:
    noon = "2026-11-23T12:00:00"
    assert responses._utc(noon) == datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
    assert responses._utc(None) is None
