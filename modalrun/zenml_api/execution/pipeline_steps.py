"""Run the steps of a static pipeline one after the other in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext

from zenml.utils.logging_utils import (
    LoggingContext,
    is_pipeline_logging_enabled,
    setup_logging_context,
)

from modalrun.errors import RunStopped
from modalrun.run.events import StepState
from modalrun.run.records import SUCCESSFUL
from modalrun.zenml_api.execution.single_step import FinalStatus, Signals, SingleStep
from modalrun.zenml_api.execution.steps import LoadedRun
from modalrun.zenml_api.records.responses import STOPPED


class PipelineSteps:
    """The steps of one run, in a process that runs some of them.

    Attributes:
        graph: Each step's name -> the names of the steps it waits for, parents first.
        retries: Each step's number of retries, first delay in seconds, and its growth factor.
        done: The steps that have succeeded already and are not run again, each with its state.
        failure_mode: ZenML's `ExecutionMode`, as its value.
    """

    def __init__(self, run_id: str) -> None:
        """Load the run and its deployment from ZenML.

        Raises:
            RunStopped: The run was stopped already.
        """
        self._loaded = LoadedRun(run_id)
        if self._loaded.run.status in STOPPED:
            # It was stopped before this sandbox existed.
            raise RunStopped
        self._log: LoggingContext | None = None
        self._logs = ExitStack()
        snapshot = self._loaded.snapshot
        self.graph: Mapping[str, tuple[str, ...]] = {
            name: tuple(step.spec.upstream_steps)
            for name, step in snapshot.step_configurations.items()
        }
        self.retries: Mapping[str, tuple[int, float, float]] = {
            name: (retry.max_retries, retry.delay, retry.backoff)
            for name, step in snapshot.step_configurations.items()
            if (retry := step.config.retry) is not None
        }
        self.done: Mapping[str, StepState] = {
            name: SUCCESSFUL[step.status.value]
            for name, step in self._loaded.run.steps.items()
            if step.status.is_successful
        }
        self.failure_mode: str = snapshot.pipeline_configuration.execution_mode.value

    def initialize(self) -> None:
        """Call the pipeline's init hook; what is printed outside of steps is stored from now on."""
        snapshot = self._loaded.snapshot
        with ExitStack() as logs:
            if is_pipeline_logging_enabled(snapshot.pipeline_configuration):
                # As the process of ZenML's own orchestrators names it.
                run = self._loaded.run
                self._log = logs.enter_context(
                    setup_logging_context(source="orchestrator", pipeline_run=run)
                )
            self._loaded.stack.orchestrator.run_init_hook(snapshot=snapshot)
            self._logs = logs.pop_all()

    def run(
        self, name: str, signals: Signals, failed: Callable[[BaseException], None]
    ) -> FinalStatus:
        """Run one step once; see `SingleStep.run`."""
        with self._log.disabled() if self._log else nullcontext():
            return SingleStep(self._loaded, name).run(signals, failed)

    def cleanup(self) -> None:
        """Call the pipeline's cleanup hook, and store what was printed outside of steps."""
        with self._logs:
            self._loaded.stack.orchestrator.run_cleanup_hook(snapshot=self._loaded.snapshot)
