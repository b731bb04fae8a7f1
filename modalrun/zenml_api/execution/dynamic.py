"""Run a dynamic pipeline inside the run sandbox with ZenML's own runner. Read from ZenML 0.98.0."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from zenml.client import Client
from zenml.config import DockerSettings
from zenml.enums import ExecutionStatus, StepRuntime
from zenml.exceptions import RunStoppedException
from zenml.execution.pipeline.dynamic.compilation import get_step_runtime
from zenml.execution.pipeline.dynamic.runner import DynamicPipelineRunner
from zenml.steps import StepHeartBeatTerminationException

from modalrun.plan.isolated_step import IsolatedStep, plan_isolated_step
from modalrun.run import output_tagging
from modalrun.run.events import StepState
from modalrun.run.manifest import RunManifest
from modalrun.run.reporting import emit_step_event, log_line, one_line
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.zenml_api.execution.single_step import FinalStatus, final_status
from modalrun.zenml_api.execution.steps import LoadedRun
from modalrun.zenml_api.orchestrator import ModalOrchestrator
from modalrun.zenml_api.records import runs, step_records
from modalrun.zenml_api.records.queries import STOPPED

if TYPE_CHECKING:
    from zenml.config.step_configurations import Step, StepConfiguration
    from zenml.config.step_run_info import StepRunInfo
    from zenml.models import PipelineRunResponse, StepRunResponse

STOP_REASON = "The run was asked to stop."


class IsolatedSandboxes(Protocol):
    """Run isolated steps in sandboxes, by the id of their record in ZenML.

    Attributes:
        manifest: The run.
        on_end: Called from another thread after the last attempt of a step has ended.
        is_awaited: Called from another thread with a record's id; returns whether the record is
            unfinished in a run that is not stopped.
    """

    manifest: RunManifest
    on_end: Callable[[], None]
    is_awaited: Callable[[str], bool]

    def submit(self, step: IsolatedStep) -> None:
        """Create the sandbox of a step."""

    def take_over(self, step: IsolatedStep) -> None:
        """Supervise a step that an earlier process of the run has submitted."""

    def exit_of(self, step_run: str, *, wait: bool = False) -> SandboxExit | None:
        """Return how a step ended; None while it runs. Raises KeyError for an unknown one."""

    def stop(self, step_run: str) -> None:
        """Terminate a step's sandbox."""

    def close_run(self, run_id: str) -> None:
        """Create no more sandboxes for the steps of a run."""


class DynamicRun:
    """One run of a dynamic pipeline, in the process that runs its function."""

    def __init__(self, run_id: str, isolated: IsolatedSandboxes | None) -> None:
        """Load the run.

        Args:
            isolated: Runs isolated steps; None to run every step in this process.
        """
        self._loaded = LoadedRun(run_id)
        orchestrator = self._loaded.stack.orchestrator
        assert isinstance(orchestrator, ModalOrchestrator)
        if isolated is not None:
            orchestrator.isolation = Isolation(isolated)
        self._runner = _Runner(
            snapshot=self._loaded.snapshot, run=self._loaded.run, orchestrator=orchestrator
        )
        if isolated is not None:
            # ZenML would check every ten seconds.
            isolated.on_end = self._runner.check_isolated_steps
        if self._loaded.run.status not in _NOT_BEGUN:
            _emit_finished_steps(run_id)

    def run(self, failed: Callable[[BaseException], None]) -> FinalStatus:
        """Run the pipeline to its end, and return the recorded status of the run.

        Args:
            failed: Gets what the pipeline raised.
        """
        try:
            self._runner.run_pipeline()
        except _StopRequested as error:
            log_line(str(error))
        except Exception as error:
            failed(error)
        run = Client().zen_store.get_run(self._loaded.run.id, hydrate=False)
        if run.status == ExecutionStatus.PAUSED:
            # The function waits for an answer, and ZenML resumes the run after it.
            return "completed"
        return final_status(run.status)

    def stop(self) -> None:
        """Start nothing new; after the running steps have finished, the run ends as stopped."""
        self._runner.stop()


_NOT_BEGUN = {ExecutionStatus.INITIALIZING, ExecutionStatus.PROVISIONING}
_UNFINISHED = _NOT_BEGUN | {ExecutionStatus.RUNNING}

_DONE: dict[str, StepState] = {"completed": "completed", "cached": "cached", "failed": "failed"}


def _emit_finished_steps(run_id: str) -> None:
    """Emit the ends of steps that an earlier process has run, so that their logs are found."""
    for name, record in step_records.step_states(run_id, detailed=True).items():
        if record.status in _DONE:
            emit_step_event(
                name,
                _DONE[record.status],
                attempt=record.attempt,
                sandbox=record.metadata.sandbox_id if record.metadata else None,
                began=record.began,
            )


class _StopRequested(RuntimeError):
    """The run was asked to stop; nothing new starts."""


class _Runner(DynamicPipelineRunner):
    """Extend ZenML's runner: its run can end as stopped, and its steps emit events."""

    _stop_requested = False

    @property
    def stop_requested(self) -> bool:
        """Whether this run, or a run that it is a child of, was asked to stop."""
        parent = self._parent_runner
        return self._stop_requested or (isinstance(parent, _Runner) and parent.stop_requested)

    def stop(self) -> None:
        """Start nothing new, in child pipelines neither."""
        self._stop_requested = True
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
        if isinstance(self._orchestrator, ModalOrchestrator) and self._orchestrator.isolation:
            self._orchestrator.isolation.close_run(str(self._run.id))
        super()._on_failure_detected(exception=exception)

    def _run_sync_step(self, step: Step, remaining_retries: int | None = None) -> StepRunResponse:
        name = step.spec.invocation_id
        if self._is_isolated(step):
            return _emit_if_cached(super()._run_sync_step(step, remaining_retries))
        with output_tagging.tagged(name):
            emit_step_event(name, "running")
            try:
                step_run = super()._run_sync_step(step, remaining_retries)
            except (RunStoppedException, StepHeartBeatTerminationException):
                emit_step_event(name, "stopped")
                raise
            except BaseException as error:
                emit_step_event(name, "failed", reason=one_line(error))
                raise
            cached = step_run.status == ExecutionStatus.CACHED
            emit_step_event(name, "cached" if cached else "completed")
            return step_run

    def _register_isolated_step_for_monitoring(
        self, invocation_id: str, step_run: StepRunResponse
    ) -> None:
        _emit_if_cached(step_run)
        super()._register_isolated_step_for_monitoring(invocation_id, step_run)

    def _is_isolated(self, step: Step) -> bool:
        runtime, _ = get_step_runtime(
            step_config=step.config,
            pipeline_docker_settings=self._snapshot.pipeline_configuration.docker_settings,
            orchestrator=self._orchestrator,
        )
        return runtime == StepRuntime.ISOLATED

    def _build_child_runner(self, child_run: PipelineRunResponse) -> DynamicPipelineRunner:
        assert child_run.snapshot is not None
        return _Runner(
            snapshot=child_run.snapshot,
            run=child_run,
            orchestrator=self._orchestrator,
            pause_coordinator=self._pause_coordinator,
            parent_runner=self,
        )

    def _publish_run_status(
        self, return_value: Any = None, exception: BaseException | None = None
    ) -> None:
        if self.stop_requested and exception is not None:
            # ZenML records a stopping run that fails as stopped. Only at the end: the heartbeat
            # would interrupt running steps.
            runs.mark_stopping(str(self._run.id), STOP_REASON)
        super()._publish_run_status(return_value=return_value, exception=exception)


def _emit_if_cached(step_run: StepRunResponse) -> StepRunResponse:
    """Emit the event of a cached isolated step; the others' sandboxes emit theirs."""
    if step_run.status == ExecutionStatus.CACHED:
        emit_step_event(step_run.name, "cached")
    return step_run


class Isolation:
    """Run ZenML's isolated steps for our orchestrator."""

    def __init__(self, steps: IsolatedSandboxes) -> None:
        self._steps = steps
        steps.is_awaited = _is_awaited

    def submit(self, info: StepRunInfo) -> None:
        """Create the sandbox of a step.

        Raises:
            ModalrunError: A setting of the step is wrong, or Modal refuses the sandbox.
        """
        self._steps.submit(self._isolated_step(info.step_run, info.config))

    def status(self, step_run: StepRunResponse, *, wait: bool = False) -> ExecutionStatus:
        """Return the status of a step's sandbox, after its end if `wait` is set.

        A sandbox that an earlier process of the run has submitted is supervised from now on. A
        failure that the step itself has not recorded is recorded with its reason.
        """
        name = str(step_run.id)
        try:
            end = self._steps.exit_of(name, wait=wait)
        except KeyError:
            if (recorded := _recorded(step_run.id)) not in _UNFINISHED:
                return recorded
            self._steps.take_over(self._isolated_step(step_run, step_run.config))
            end = self._steps.exit_of(name, wait=wait)
        if end is None:
            return ExecutionStatus.RUNNING
        if end.kind is ExitKind.COMPLETED:
            return ExecutionStatus.COMPLETED
        # The record wins: outputs are stored, or the server awaits another attempt.
        if _is_awaited(name):
            step_records.fail_step(str(step_run.pipeline_run_id), step_run.name, end.reason)
        recorded = _recorded(step_run.id)
        return ExecutionStatus.FAILED if recorded in _UNFINISHED else recorded

    def stop(self, step_run: StepRunResponse) -> None:
        """Terminate a step's sandbox."""
        self._steps.stop(str(step_run.id))

    def close_run(self, run_id: str) -> None:
        """Create no more sandboxes for the steps of a run, or of a child pipeline's."""
        self._steps.close_run(run_id)

    def _isolated_step(self, step_run: StepRunResponse, config: StepConfiguration) -> IsolatedStep:
        settings = config.model_dump(mode="json")["settings"]
        manifest = self._steps.manifest
        sandbox = plan_isolated_step(
            replace(manifest, docker=_without_defaults(manifest.docker)),
            step_run.name,
            {**settings, "docker": _without_defaults(settings.get("docker") or {})},
            template=config.template,
            python=sys.executable,
            source_root=Path.cwd(),
        )
        return IsolatedStep(
            name=step_run.name,
            step_run=str(step_run.id),
            run_id=str(step_run.pipeline_run_id),
            attempt=step_run.version,
            sandbox=sandbox,
        )


def _without_defaults(docker: Mapping[str, Any]) -> dict[str, Any]:
    """Return Docker settings without defaults, which ZenML fills in for child pipelines."""
    defaults = DockerSettings().model_dump(mode="json")
    return {name: value for name, value in docker.items() if value != defaults.get(name)}


def _is_awaited(step_run: str) -> bool:
    """Return whether a record is unfinished in a run that is not stopped."""
    client = Client()
    record = client.zen_store.get_run_step(UUID(step_run), hydrate=False)
    if record.status not in _UNFINISHED:
        return False
    run = client.zen_store.get_run(record.pipeline_run_id, hydrate=False)
    return run.status not in STOPPED


def _recorded(step_run: UUID) -> ExecutionStatus:
    return Client().zen_store.get_run_step(step_run, hydrate=False).status
