"""Interpret ZenML's records for the driver."""

from zenml.enums import ExecutionStatus

from modalrun.zenml_api.execution.recorder import median_seconds
from modalrun.zenml_api.execution.single_step import final_status


def test_median_of_the_runs_that_have_a_step() -> None:
    runs = [{"a": 1.0, "b": 5.0}, {"a": 9.0}, {"a": 2.0, "b": 7.0}]
    assert median_seconds(runs) == {"a": 2.0, "b": 6.0}
    assert median_seconds([]) == {}


def test_every_status_has_a_meaning_for_the_exit_of_a_sandbox() -> None:
    meaning = {status: final_status(status) for status in ExecutionStatus}
    final = {status for status in ExecutionStatus if status.is_finished}
    assert {meaning[status] for status in final} == {"completed", "failed", "stopped"}
    assert meaning[ExecutionStatus.CACHED] == "completed"
    # Another attempt gets another sandbox; this one's has failed.
    assert meaning[ExecutionStatus.RETRYING] == "failed"
    assert meaning[ExecutionStatus.STOPPING] == "stopped"
    assert meaning[ExecutionStatus.RUNNING] == "running"
