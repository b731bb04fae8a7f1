"""Run the isolated steps of a dynamic pipeline for ZenML's runner, in sandboxes of their own."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from zenml.client import Client
from zenml.enums import ExecutionStatus

from modalrun.run.contract import RUN_ID
from modalrun.run.metadata import step_waits_metadata
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.run.step_request import StepRequest
from modalrun.zenml_api.docker_digest import docker_digest
from modalrun.zenml_api.execution.child_pipelines import child_of
from modalrun.zenml_api.execution.steps import NOT_BEGUN
from modalrun.zenml_api.orchestrator import ModalOrchestrator
from modalrun.zenml_api.records import step_records, updates
from modalrun.zenml_api.records.responses import STOPPED

if TYPE_CHECKING:
    from zenml.config.step_configurations import StepConfiguration
    from zenml.config.step_run_info import StepRunInfo
    from zenml.models import StepRunResponse

UNFINISHED = NOT_BEGUN | {ExecutionStatus.RUNNING}


class IsolatedSandboxes(Protocol):
    """Run isolated steps in sandboxes, by the id of their record in ZenML.

    Attributes:
        on_end: Called from another thread after the last attempt of a step has ended.
        on_waits: Called from another thread with what steps wait for now, by their names.
        end_of_record: Called from another thread with a record's id; returns its status, None
            while it is unfinished in a run that is not stopped.
    """

    on_end: Callable[[], None]
    on_waits: Callable[[dict[str, str]], None]
    end_of_record: Callable[[str], str | None]

    def submit(self, step: StepRequest) -> None:
        """Create the sandbox of a step, as soon as `max_parallelism` allows it.

        Raises:
            ModalrunError: A setting is wrong, Modal refuses it, or the run is being ended.
        """

    def take_over(self, step: StepRequest) -> None:
        """Supervise a step that an earlier process of the run has submitted."""

    def exit_of(self, step_run: str, *, wait: bool = False) -> SandboxExit | None:
        """Return how a step has ended for good; None while it has not.

        Raises:
            KeyError: This process has neither submitted nor taken over the step.
        """

    def stop(self, step_run: str) -> None:
        """Terminate a step's sandbox; nothing happens if it has ended or is not known."""

    def close_run(self, run_id: str) -> None:
        """Create no more sandboxes for the steps of a run, or of a child pipeline's run."""


class IsolatingOrchestrator(ModalOrchestrator):
    """Run a dynamic pipeline's isolated steps in sandboxes of their own, from the run sandbox.

    ZenML runs every step in the process of the pipeline if its orchestrator has no such methods.
    """

    _sandboxes: IsolatedSandboxes
    _stopping: threading.Event
    # The ids of the records of steps that ZenML has ended early.
    _stopped: set[str]

    def use(self, sandboxes: IsolatedSandboxes, stopping: threading.Event) -> None:
        """Run isolated steps in these sandboxes.

        Args:
            stopping: Is set when the run was asked to stop.
        """
        self._sandboxes, self._stopping, self._stopped = sandboxes, stopping, set()
        sandboxes.end_of_record = _end_of_record
        sandboxes.on_waits = _store_waits

    def submit_isolated_step(self, step_run_info: StepRunInfo, environment: dict[str, str]) -> None:
        """Create a sandbox for a step of a dynamic pipeline.

        Args:
            environment: Not used: the sandbox gets this one's variables, and sets the step's own.

        Raises:
            ModalrunError: A setting of the step is wrong, or Modal refuses the sandbox.
        """
        self._sandboxes.submit(_request(step_run_info.step_run, step_run_info.config))

    def get_isolated_step_status(self, step_run: StepRunResponse) -> ExecutionStatus:
        """Return the status of a step's sandbox."""
        return self._status(step_run, wait=False)

    def wait_for_isolated_step(self, step_run: StepRunResponse) -> ExecutionStatus:
        """Wait for the end of a step's sandbox. (ZenML's own method would poll.)"""
        return self._status(step_run, wait=True)

    def stop_isolated_step(self, step_run: StepRunResponse) -> None:
        """Terminate a step's sandbox."""
        self._stopped.add(str(step_run.id))
        self._sandboxes.stop(str(step_run.id))

    def close_run(self, run_id: str) -> None:
        """Create no more sandboxes for the steps of a run, or of a child pipeline's."""
        self._sandboxes.close_run(run_id)

    def _status(self, step_run: StepRunResponse, *, wait: bool) -> ExecutionStatus:
        """Return the status of a step's sandbox, after its end if `wait` is set.

        A sandbox that an earlier process of the run has submitted is supervised from now on. An
        end that the step itself has not recorded is recorded with its reason.
        """
        name = str(step_run.id)
        try:
            end = self._sandboxes.exit_of(name, wait=wait)
        except KeyError:
            if (recorded := _recorded(step_run.id)) not in UNFINISHED:
                return recorded
            self._sandboxes.take_over(_request(step_run, step_run.config))
            end = self._sandboxes.exit_of(name, wait=wait)
        if end is None:
            return ExecutionStatus.RUNNING
        if end.kind is ExitKind.COMPLETED:
            return ExecutionStatus.COMPLETED
        # The record wins: outputs are stored, or the server awaits another attempt.
        if _end_of_record(name) is None:
            # Without the stop, a lost step would have been executed again.
            stopped = self._stopping.is_set() or name in self._stopped
            lost = stopped and end.is_infrastructure
            record_end = step_records.stop_step if lost else step_records.fail_step
            record_end(str(step_run.pipeline_run_id), step_run.name, end.reason)
        recorded = _recorded(step_run.id)
        return ExecutionStatus.FAILED if recorded in UNFINISHED else recorded


def _request(step_run: StepRunResponse, config: StepConfiguration) -> StepRequest:
    settings = config.model_dump(mode="json")["settings"]
    return StepRequest(
        name=step_run.name,
        step_run=step_run.id,
        run_id=step_run.pipeline_run_id,
        attempt=step_run.version,
        settings=settings,
        docker=docker_digest(settings.get("docker") or {}),
        template=config.template,
        child=child_of(str(step_run.pipeline_run_id)),
    )


def _store_waits(waits: dict[str, str]) -> None:
    # What is only shown must not end a run.
    with contextlib.suppress(Exception):
        updates.publish_metadata(os.environ[RUN_ID], step_waits_metadata(waits))


def _end_of_record(step_run: str) -> str | None:
    """Return a record's status; None while it is unfinished in a run that is not stopped."""
    client = Client()
    try:
        record = client.zen_store.get_run_step(UUID(step_run), hydrate=False)
    except KeyError:
        # It was deleted with its run, and no other sandbox executes it.
        return ExecutionStatus.STOPPED.value
    if record.status in UNFINISHED:
        run = client.zen_store.get_run(record.pipeline_run_id, hydrate=False)
        if run.status not in STOPPED:
            return None
    return record.status.value


def _recorded(step_run: UUID) -> ExecutionStatus:
    return Client().zen_store.get_run_step(step_run, hydrate=False).status
