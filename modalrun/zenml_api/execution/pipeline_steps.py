"""Run the steps of a static pipeline one after the other in one process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext

from zenml.enums import ExecutionStatus
from zenml.utils.logging_utils import (
    LoggingContext,
    is_pipeline_logging_enabled,
    setup_logging_context,
)

from modalrun.errors import RunStopped
from modalrun.run.manifest import Graph
from modalrun.run.records import SUCCESSFUL
from modalrun.zenml_api import compat
from modalrun.zenml_api.execution.single_step import FinalStatus, Signals, SingleStep
from modalrun.zenml_api.execution.steps import LoadedRun
from modalrun.zenml_api.records.responses import STOPPED


class PipelineSteps:
    """The steps of one run, in a process that runs some of them.

    Attributes:
        graph: The steps.
        failed_before: Whether the run had failed when it was loaded.
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
        self.failed_before = self._loaded.run.status == ExecutionStatus.FAILED
        self._log: LoggingContext | None = None
        self._logs = ExitStack()
        snapshot = self._loaded.snapshot
        steps = snapshot.step_configurations
        self.graph = Graph(
            steps={name: tuple(step.spec.upstream_steps) for name, step in steps.items()},
            retries={
                name: (retry.max_retries, retry.delay, retry.backoff)
                for name, step in steps.items()
                if (retry := step.config.retry) is not None
            },
            done={
                name: SUCCESSFUL[step.status.value]
                for name, step in self._loaded.run.steps.items()
                if step.status.is_successful
            },
            failure_mode=snapshot.pipeline_configuration.execution_mode.value,
        )

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
        """Run one step once, and return its recorded status; see `SingleStep.run`."""
        with compat.disabled(self._log) if self._log else nullcontext():
            return SingleStep(self._loaded, name).run(signals, failed)

    def cleanup(self) -> None:
        """Call the pipeline's cleanup hook, and store what was printed outside of steps."""
        with self._logs:
            self._loaded.stack.orchestrator.run_cleanup_hook(snapshot=self._loaded.snapshot)
