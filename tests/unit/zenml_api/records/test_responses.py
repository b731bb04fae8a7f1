"""Records made of ZenML's responses."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from zenml.enums import ExecutionStatus
from zenml.models import ExceptionInfo

from modalrun.run.records import FINISHED, SUCCESSFUL
from modalrun.zenml_api.records import responses


def test_the_final_statuses_are_zenmls() -> None:
    assert {status.value for status in ExecutionStatus if status.is_finished} == FINISHED
    assert {status.value for status in ExecutionStatus if status.is_successful} == SUCCESSFUL


def test_times_get_the_zone_that_zenml_leaves_out() -> None:
    noon = "2026-11-23T12:00:00"
    assert responses._utc(noon) == datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
    assert responses._utc(None) is None


FRAMES = """Traceback (most recent call last):
  File "/usr/lib/python3.11/importlib/__init__.py", line 126, in import_module
  File "/state/root/app/code/team/training.py", line 7, in <module>
  File "/usr/lib/python3.11/site-packages/other.py", line 9, in load
"""


@pytest.mark.parametrize(
    ("info", "place"),
    [
        (ExceptionInfo(traceback=FRAMES), " (team/training.py:7)"),
        # The step's own function: ZenML knows its line.
        (ExceptionInfo(traceback=FRAMES, user_code_line=3), ""),
        (ExceptionInfo(traceback="The step exited with code 3."), ""),
        (ExceptionInfo(traceback='  File "/app/code/bad.py", line 3\n    def (\n'), " (bad.py:3)"),
    ],
)
def test_the_line_of_an_error_outside_of_the_steps_function(
    info: ExceptionInfo, place: str
) -> None:
    assert responses.place_of(info.model_dump(mode="json")) == place
