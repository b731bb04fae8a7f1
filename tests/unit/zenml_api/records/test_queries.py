"""Records made of ZenML's responses."""

from __future__ import annotations

from zenml.enums import ExecutionStatus

from modalrun.run.records import FINISHED, SUCCESSFUL


def test_the_final_statuses_are_zenmls() -> None:
    assert {status.value for status in ExecutionStatus if status.is_finished} == FINISHED
    assert {status.value for status in ExecutionStatus if status.is_successful} == SUCCESSFUL
