"""Run a dynamic pipeline inside the run sandbox with ZenML's own runner. Read from ZenML 0.98.0."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.exceptions import RunStoppedException, StepExecutionException
from zenml.execution.pipeline.dynamic.future_registry import StartupCancelled
from zenml.execution.pipeline.dynamic.runner import DynamicPipelineRunner
from zenml.orchestrators.publish_utils import publish_step_run_status_update
from zenml.steps import StepHeartBeatTerminationException

from modalrun.run import output_tagging
from modalrun.run.contract import STOP_REASON
from modalrun.run.events import StepState
from modalrun.run.failure import Failure, of_raising_step
from modalrun.run.finished_step import end_event
from modalrun.run.records import SUCCESSFUL
from modalrun.run.reporting import emit_step_event, log_line, write_event
from modalrun.zenml_api import compat
from modalrun.zenml_api.execution import containment
from modalrun.zenml_api.execution.child_pipelines import child_of
from modalrun.zenml_api.execution.exception_text import text_required
from modalrun.zenml_api.execution.inline_steps import InlineSteps
from modalrun.zenml_api.execution.isolation import (
    UNFINISHED,
    IsolatedSandboxes,
    IsolatingOrchestrator,
)
from modalrun.zenml_api.execution.launcher import Launcher, retry_delays
from modalrun.zenml_api.execution.single_step import FinalStatus, final_status
from modalrun.zenml_api.execution.steps import NOT_BEGUN, LoadedRun
from modalrun.zenml_api.orchestrator import ModalOrchestrator
from modalrun.zenml_api.records import step_records, updates

if TYPE_CHECKING:
    from zenml.config.step_configurations import Step, StepConfiguration
    from zenml.models import PipelineRunResponse, StepRunResponse
    from zenml.pipelines.dynamic.pipeline_definition import DynamicPipeline

MONITOR_PAUSE = 1.0
"""Seconds between an error of ZenML's check of isolated steps and the next check."""


class _InlineOrchestrator(ModalOrchestrator):
    """Run every step in this process."""


# ZenML says of an isolated step: "The ... does not support running steps in isolated runtimes".
_InlineOrchestrator.__name__ = "mode 'pipeline'"


class DynamicRun:
    """One run of a dynamic pipeline, in the process that runs its function."""

    def __init__(
        self,
        run_id: str,
        isolated: IsolatedSandboxes | None,
        death: tuple[str, list[tuple[str, str]], list[str]] | None,
        end_reason: Callable[[], str | None],
    ) -> None:
        """Load the run.

        Args:
            isolated: Runs isolated steps; None to run every step in this process.
            death: How an earlier process of the run has died; see `InlineSteps`.
            end_reason: Why this one is ended from outside; see there.
        """
        kind = IsolatingOrchestrator if isolated is not None else _InlineOrchestrator
        self._loaded = LoadedRun(run_id, orchestrator=kind)
        orchestrator = self._loaded.stack.orchestrator
        configuration = self._loaded.snapshot.pipeline_configuration
        self._inline = InlineSteps(configuration, death, end_reason, isolated is not None)
        self._runner = _Runner(
            snapshot=self._loaded.snapshot, run=self._loaded.run, orchestrator=orchestrator
        )
        self._runner.share(self._inline)
        if isolated is not None and isinstance(orchestrator, IsolatingOrchestrator):
            orchestrator.use(isolated, self._inline.stopping)
            # ZenML would check every ten seconds.
            isolated.on_end = self._runner.check_isolated_steps
        if self._loaded.run.status not in NOT_BEGUN:
            _emit_finished_steps(run_id)

    def run(self, failed: Callable[[BaseException], None]) -> FinalStatus:
        """Run the pipeline to its end, and return the recorded status of the run.

        Args:
            failed: Gets what the pipeline raised.
        """
        reason = self._inline.death
        try:
            if reason is None:
                self._runner.run_pipeline()
        except _StopRequested as error:
            reason = STOP_REASON
            log_line(str(error))
        except BaseException as error:
            failed(error)
            reason = _reason(str(self._loaded.run.id), error)
        run = Client().zen_store.get_run(self._loaded.run.id, hydrate=False)
        if reason is not None and run.status != ExecutionStatus.PAUSED:
            # ZenML records no failure of the init hook, of the import, or without a text.
            # A step that failed is recorded. Others ran in an earlier process, and not again.
            stopped = reason == STOP_REASON or final_status(run.status) == "stopped"
            why = "" if stopped else "The run failed before the step had ended: "
            updates.finalize_run(str(run.id), reason, left=f"{why}{reason}")
            run = Client().zen_store.get_run(self._loaded.run.id, hydrate=False)
        if run.status == ExecutionStatus.PAUSED:
            # The function waits for an answer, and ZenML resumes the run after it.
            return "completed"
        return final_status(run.status)

    def stop(self) -> None:
        """Start nothing new; after the running steps have finished, the run ends as stopped."""
        self._runner.stop()


def _reason(run_id: str, error: BaseException) -> str:
    """Say why the function has failed: with the step's name, if a step's failure is the cause."""
    raised = error.original_exception if isinstance(error, StepExecutionException) else None
    records = step_records.step_states(run_id).values()
    steps = {
        step.name: step.failure for step in records if step.status == "failed" and step.failure
    }
    return of_raising_step(Failure.of(raised or error), steps) or str(Failure.of(error))


def _emit_finished_steps(run_id: str) -> None:
    """Emit the ends of steps that an earlier process has run, so that their logs are found."""
    for record in step_records.step_states(run_id).values():
        if record.successful or record.status == "failed":
            write_event(end_event(record, time.time()))


class _StopRequested(RuntimeError):
    """The run was asked to stop; nothing new starts."""


class _Runner(DynamicPipelineRunner):
    """Extend ZenML's runner: its run can end as stopped, and its steps emit events.

    A step runs in this process as `InlineSteps` allows, and a record that an earlier process has
    left `running` is executed again.
    """

    _stop_requested = False
    _inline: InlineSteps
    # The isolated step that ZenML checks, or has checked last.
    _checked: StepRunResponse | None = None
    # What precedes the names of its steps in their labels.
    _child: str

    def share(self, inline: InlineSteps) -> None:
        """Share the process with other steps, and take up what an earlier process has left."""
        self._inline = inline
        self._child = child_of(str(self._run.id))
        self._left = {
            name: record
            for name, record in self._existing_step_runs.items()
            if record.status == ExecutionStatus.RUNNING and self._is_inline(record.config)
        }
        # ZenML would count the loss as a failure.
        for name in self._left:
            del self._existing_step_runs[name]

    @property
    def stop_requested(self) -> bool:
        """Whether this run, or a run that it is a child of, was asked to stop."""
        parent = self._parent_runner
        return self._stop_requested or (isinstance(parent, _Runner) and parent.stop_requested)

    @property
    def pipeline(self) -> DynamicPipeline:
        """The pipeline; what its function raises has a text."""
        if self._pipeline is None:
            call = super().pipeline._call_entrypoint
            # ZenML asks an exception for its text before it records the failure.
            super().pipeline._call_entrypoint = (  # type: ignore[method-assign]
                lambda **parameters: self._call_function(lambda: call(**parameters))
            )
        return super().pipeline

    def stop(self) -> None:
        """Start nothing new, in child pipelines neither."""
        self._stop_requested = True
        self._inline.stopping.set()
        with self._lifecycle_lock:
            children = list(self._child_runners.values())
        for child in children:
            child.request_shutdown(_StopRequested(STOP_REASON))
        self.request_shutdown(_StopRequested(STOP_REASON))

    def check_isolated_steps(self) -> None:
        """Let ZenML check its isolated steps now, also those of child pipelines."""
        self._monitoring_event.set()
        for child in list(self._child_runners.values()):
            if isinstance(child, _Runner):
                child.check_isolated_steps()

    def _monitoring_loop(self) -> None:
        # An error would end it for good, and the run would wait for its isolated steps for ever.
        logged: set[str] = set()
        while True:
            try:
                super()._monitoring_loop()
                return
            except Exception as error:
                if (step := self._checked) is not None:
                    # ZenML forgets a step that has ended before it records that.
                    self._steps_to_monitor.setdefault(step.name, step)
                text = f"Isolated steps can't be checked: {type(error).__name__}: {error}"
                if text not in logged:
                    log_line(text)
                logged.add(text)
            self._monitoring_event.wait(MONITOR_PAUSE)
            self._monitoring_event.clear()

    def launch_step(self, *args: Any, **kwargs: Any) -> Any:
        """Start a step, unless the run was asked to stop.

        Raises:
            _StopRequested: The run was asked to stop. (ZenML checks it only for `step.submit`.)
        """
        if self.stop_requested:
            raise _StopRequested(STOP_REASON)
        return super().launch_step(*args, **kwargs)

    def _on_failure_detected(self, exception: BaseException) -> None:
        # ZenML's queue is empty, but steps may wait because of `max_parallelism`.
        if isinstance(self._orchestrator, IsolatingOrchestrator):
            self._orchestrator.close_run(str(self._run.id))
        super()._on_failure_detected(exception=exception)

    def _run_sync_step(self, step: Step, remaining_retries: int | None = None) -> StepRunResponse:
        name = step.spec.invocation_id
        if not self._is_inline(step.config):
            return self._emit_if_taken(self._run_isolated_step(step, remaining_retries))
        delays = retry_delays(step)
        left, before = self._left.pop(name, None), self._existing_step_runs.get(name)
        attempt = left.version if left else before.version + 1 if before else 1
        while True:
            with self._inline.running(str(self._run.id), name, step.config):
                if self.stop_requested:
                    raise _StopRequested(STOP_REASON)
                with output_tagging.tagged(self._child + name):
                    step_run = self._attempt(step, attempt, left)
            if step_run is not None:
                return step_run
            self._inline.stopping.wait(next(delays))
            left, attempt = None, attempt + 1

    def _call_function(self, call: Callable[[], Any]) -> Any:
        """Call the pipeline's function; raise the first failure in place of what follows it."""
        try:
            return self._call_user_code(call)
        except StartupCancelled as error:
            if (cause := error.__cause__ or self._exception) is None:
                raise
        raise cause

    def _call_user_code(self, call: Callable[[], Any]) -> Any:
        """Call user code in this process alone; replace an exception without a text."""
        with text_required(), self._inline.interrupted(), containment.contained():
            return call()

    def _run_isolated_step(self, step: Step, retries: int | None) -> StepRunResponse:
        """Run an isolated step with its retries; a stop ends the wait for one (ZenML sleeps).

        Args:
            retries: How many attempts may follow those of an earlier process, this one included;
                None if it has made none.
        """
        if retries is not None:
            retries = max(retries - 1, 0)
        else:
            retries = step.config.retry.max_retries if step.config.retry else 0
        delays = retry_delays(step)
        while True:
            try:
                return super()._run_sync_step(step, 0)
            except RunStoppedException:
                raise
            except BaseException:
                if retries == 0:
                    raise
            self._inline.stopping.wait(next(delays))
            if self.stop_requested:
                raise _StopRequested(STOP_REASON)
            retries -= 1

    def _attempt(
        self, step: Step, attempt: int, left: StepRunResponse | None
    ) -> StepRunResponse | None:
        """Run an inline step once; return None if it has failed and is tried again.

        Args:
            left: The record to execute again.
        """
        name = self._child + step.spec.invocation_id
        launcher = Launcher(self._snapshot, step, self._orchestrator_run_id, None)
        launcher.guarded = self._call_user_code
        emit_step_event(name, "running", attempt=attempt)
        try:
            step_run = launcher.launch() if left is None else launcher.launch_again(left.id)
        except (RunStoppedException, StepHeartBeatTerminationException):
            emit_step_event(name, "stopped", attempt=attempt)
            raise
        except BaseException as error:
            reason = str(Failure.of(error))
            retried = launcher.record is not None and _is_retried(launcher.record.id, reason)
            state: StepState = "retrying" if retried else "failed"
            emit_step_event(name, state, attempt=attempt, reason=reason)
            if not retried:
                raise
            log_line(f"Step `{name}` failed and is tried again: {reason}")
            return None
        finally:
            launcher.wait_for_metadata()
        # ZenML may not have read the record again.
        state = SUCCESSFUL.get(step_run.status.value, "completed")
        emit_step_event(name, state, attempt=attempt)
        return step_run

    def _register_isolated_step_for_monitoring(
        self, invocation_id: str, step_run: StepRunResponse
    ) -> None:
        self._emit_if_taken(step_run)
        super()._register_isolated_step_for_monitoring(invocation_id, step_run)

    def _emit_if_taken(self, step_run: StepRunResponse) -> StepRunResponse:
        """Emit the event of an isolated step that does not run; the others' sandboxes do."""
        if step_run.status in {ExecutionStatus.CACHED, ExecutionStatus.SKIPPED}:
            emit_step_event(self._child + step_run.name, SUCCESSFUL[step_run.status.value])
        return step_run

    def _stop_isolated_step(self, step_run: StepRunResponse) -> None:
        # A graceful stop is a failure to ZenML, and `fail_fast` would end what may finish.
        if not self.stop_requested:
            super()._stop_isolated_step(step_run)

    def _cleanup_isolated_step(self, step_run: StepRunResponse) -> None:
        super()._cleanup_isolated_step(step_run)
        if step_run.status == ExecutionStatus.RETRYING:
            # ZenML forgets it now, and starts its retry only while nothing else has failed.
            self._steps_to_monitor[step_run.name] = step_run
            self._monitoring_event.set()

    def _queue_concurrent_isolated_step(self, step: Step) -> Any:
        self._steps_to_monitor.pop(step.spec.invocation_id, None)
        return super()._queue_concurrent_isolated_step(step)

    def _get_isolated_step_infra_status(self, step_run: StepRunResponse) -> ExecutionStatus | None:
        self._checked = step_run
        if step_run.status != ExecutionStatus.RETRYING:
            return super()._get_isolated_step_infra_status(step_run)
        # It gets no retry, and whoever waits for it would wait for ever. ZenML would set FAILED to
        # RETRYING (`sql_zen_store.py:13129`). The reason of its failure stays.
        status = ExecutionStatus.STOPPED
        publish_step_run_status_update(step_run.id, status, end_time=step_run.end_time)
        return status

    def _is_inline(self, config: StepConfiguration) -> bool:
        docker = self._snapshot.pipeline_configuration.docker_settings
        return compat.is_inline(config, docker, self._orchestrator)

    def _build_child_runner(self, child_run: PipelineRunResponse) -> DynamicPipelineRunner:
        assert child_run.snapshot is not None
        child = _Runner(
            snapshot=child_run.snapshot,
            run=child_run,
            orchestrator=self._orchestrator,
            pause_coordinator=self._pause_coordinator,
            parent_runner=self,
        )
        child.share(self._inline)
        return child

    def _publish_run_status(
        self, return_value: Any = None, exception: BaseException | None = None
    ) -> None:
        if self.stop_requested and exception is not None:
            # ZenML records a stopping run that fails as stopped. Only at the end: the heartbeat
            # would interrupt running steps.
            updates.mark_stopping(str(self._run.id), STOP_REASON)
        super()._publish_run_status(return_value=return_value, exception=exception)


def _is_retried(record: UUID, reason: str) -> bool:
    """Return whether ZenML awaits another attempt after a failure; record it if ZenML has not."""
    status = Client().zen_store.get_run_step(record, hydrate=False).status
    if status in UNFINISHED:
        status = ExecutionStatus(step_records.end_step(str(record), "failed", reason).status)
    return status == ExecutionStatus.RETRYING
