"""Running a dynamic pipeline inside the run sandbox, with ZenML's own runner. ZenML 0.98.0."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.execution.pipeline.dynamic.runner import DynamicPipelineRunner

from modalrun.driver.ends import Kind
from modalrun.driver.isolated import IsolatedStep, IsolatedSteps
from modalrun.driver.process import say
from modalrun.isolating import sandbox_for
from modalrun.orchestrator import ModalOrchestrator
from modalrun.zenml_api import runs
from modalrun.zenml_api.one_step import Word, word
from modalrun.zenml_api.patience import outlast_the_server
from modalrun.zenml_api.steps import LoadedRun

if TYPE_CHECKING:
    from zenml.config.step_run_info import StepRunInfo
    from zenml.models import StepRunResponse

ASKED = "The run was asked to stop."


class DynamicRun:
    """One run of a dynamic pipeline, in the process that runs its function."""

    def __init__(self, run_id: str, isolated: IsolatedSteps | None) -> None:
        """Load the run.

        Args:
            run_id: ZenML's run id.
            isolated: Where isolated steps run; None to run every step in this process.
        """
        self._loaded = LoadedRun(run_id)
        outlast_the_server(say)
        orchestrator = self._loaded.stack.orchestrator
        assert isinstance(orchestrator, ModalOrchestrator)
        if isolated is not None:
            orchestrator.isolation = Isolation(isolated)
        self._runner = _Runner(
            snapshot=self._loaded.snapshot, run=self._loaded.run, orchestrator=orchestrator
        )
        if isolated is not None:
            # ZenML would look every ten seconds.
            isolated.on_end = self._runner._monitoring_event.set

    def run(self, failed: Callable[[BaseException], None]) -> Word:
        """Run the pipeline to its end; returns what is recorded of it.

        Args:
            failed: Is given what the pipeline raised.
        """
        try:
            self._runner.run_pipeline()
        except _AskedToStop as error:
            say(str(error))
        except Exception as error:
            failed(error)
        run = Client().zen_store.get_run(self._loaded.run.id, hydrate=False)
        if run.status == ExecutionStatus.PAUSED:
            # The function waits for somebody; ZenML resumes the run when they have answered.
            return "completed"
        return word(run.status)

    def stop(self) -> None:
        """Start nothing new; when what runs has finished, the run ends as stopped."""
        self._runner.asked_to_stop = True
        self._runner.request_shutdown(_AskedToStop(ASKED))


class _AskedToStop(RuntimeError):
    """Somebody asked the run to stop; nothing new starts."""


class _Runner(DynamicPipelineRunner):
    """ZenML's runner, whose run can end as stopped."""

    asked_to_stop = False

    def launch_step(self, *args: Any, **kwargs: Any) -> Any:
        """Start a step, unless the run was asked to stop.

        Raises:
            _AskedToStop: It was. ZenML's own check after a shutdown is only for `step.submit`.
        """
        if self.asked_to_stop:
            raise _AskedToStop(ASKED)
        return super().launch_step(*args, **kwargs)

    def _publish_run_status(
        self, return_value: Any = None, exception: BaseException | None = None
    ) -> None:
        if self.asked_to_stop and exception is not None:
            # Of a failed run that is stopping ZenML makes a stopped one. Not before the end: the
            # heartbeat of running steps would interrupt them.
            runs.mark_stopping(str(self._run.id), ASKED)
        super()._publish_run_status(return_value=return_value, exception=exception)


class Isolation:
    """What our orchestrator does for ZenML's isolated steps."""

    def __init__(self, steps: IsolatedSteps) -> None:
        self._steps = steps

    def submit(self, info: StepRunInfo) -> None:
        """Create the sandbox of a step.

        Raises:
            ModalrunError: A setting of the step is wrong, or Modal refuses the sandbox.
        """
        config = info.config.model_dump(mode="json")
        sandbox = sandbox_for(
            self._steps.order,
            info.pipeline_step_name,
            config["settings"],
            template=info.config.template,
            python=sys.executable,
            source_root=Path.cwd(),
        )
        self._steps.submit(
            IsolatedStep(
                name=info.pipeline_step_name,
                step_run=str(info.step_run_id),
                run_id=str(info.run_id),
                attempt=info.step_run.version,
                sandbox=sandbox,
            )
        )

    def status(self, step_run: StepRunResponse, *, wait: bool = False) -> ExecutionStatus:
        """Of a step's sandbox; of its record where another process has created the sandbox."""
        try:
            end = self._steps.end_of(str(step_run.id), wait=wait)
        except KeyError:
            return _recorded(step_run.id)
        if end is None:
            return ExecutionStatus.RUNNING
        if end.kind is Kind.COMPLETED:
            return ExecutionStatus.COMPLETED
        recorded = _recorded(step_run.id)
        # The record wins: outputs are stored, or the server wants it to be tried again.
        return recorded if recorded.is_finished else ExecutionStatus.FAILED

    def stop(self, step_run: StepRunResponse) -> None:
        """End a step's sandbox now."""
        self._steps.stop(str(step_run.id))


def _recorded(step_run: UUID) -> ExecutionStatus:
    return Client().zen_store.get_run_step(step_run, hydrate=False).status
