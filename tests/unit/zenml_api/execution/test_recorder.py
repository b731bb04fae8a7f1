"""Interpret ZenML's records for the driver."""

from zenml.enums import ExecutionStatus

from modalrun.zenml_api.execution.single_step import final_status


def test_every_status_has_a_meaning_for_the_exit_of_a_sandbox() -> None:
    meaning = {status: final_status(status) for status in ExecutionStatus}
    final = {status for status in ExecutionStatus if status.is_finished}
    assert {meaning[status] for status in final} == {"completed", "failed", "stopped"}
    assert meaning[ExecutionStatus.CACHED] == "completed"
    # Another attempt gets another sandbox; this one's has failed.
    assert meaning[ExecutionStatus.RETRYING] == "failed"
    assert meaning[ExecutionStatus.STOPPING] == "stopped"
    assert meaning[ExecutionStatus.RUNNING] == "running"
