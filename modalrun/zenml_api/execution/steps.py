"""Run the steps of a run inside a sandbox with ZenML's own step launcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from uuid import UUID

from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.exceptions import RunStoppedException
from zenml.execution.pipeline.utils import prevent_pipeline_execution
from zenml.execution.step.utils import launch_step
from zenml.steps import StepHeartBeatTerminationException
from zenml.utils.env_utils import get_runtime_environment, temporary_environment

from modalrun.errors import RunStopped
from modalrun.zenml_api import compat
from modalrun.zenml_api.lazy_integrations import activate_lazily
from modalrun.zenml_api.records.queries import STOPPED
from modalrun.zenml_api.retry import open_store
from modalrun.zenml_api.stacks import load_stack

_PLACEHOLDER = {ExecutionStatus.INITIALIZING, ExecutionStatus.PROVISIONING}
"""The statuses of a run that its first step sets to running (`sql_zen_store.py:7329`)."""


class LoadedRun:
    """A run and its deployment, loaded from ZenML in a process that runs steps of it.

    Attributes:
        run: The run.
        snapshot: Its deployment.
        stack: Its stack, with our orchestrator in it.
    """

    def __init__(self, run_id: str, only: Sequence[str] | None = None) -> None:
        """Load the run and its deployment, and prepare this process to run steps.

        Args:
            only: Load the configuration of these steps only; a large pipeline's is long.
        """
        open_store(in_sandbox=True)
        client = Client()
        self.run = client.zen_store.get_run(UUID(run_id))
        if self.run.snapshot is None or self.run.snapshot.stack is None:
            raise RuntimeError(f"The run {run_id} has lost its deployment or its stack.")
        self.snapshot = client.zen_store.get_snapshot(
            self.run.snapshot.id, step_configuration_filter=list(only) if only else None
        )
        self.stack = load_stack(self.run.snapshot.stack)
        activate_lazily()
        self._contexts = ExitStack()
        # A pipeline called from a step's module must not start a run of its own.
        self._contexts.enter_context(prevent_pipeline_execution())
        # ZenML would request the run again for each step, and list this process's packages first.
        begun = None if self.run.status in _PLACEHOLDER else self.run
        self._contexts.enter_context(compat.execution_context(begun))

    @property
    def orchestrator_run_id(self) -> str:
        """The id that ties the steps in a sandbox to their run."""
        # A child pipeline's run has one of its own, which the sandbox's environment doesn't name.
        return self.run.orchestrator_run_id or self.stack.orchestrator.get_orchestrator_run_id()


class StepRunner:
    """The steps of one run, in the process that runs them.

    Attributes:
        graph: Each step's name -> the names of the steps it waits for, parents first.
        done: The steps that have succeeded already and are not run again.
        failure_mode: ZenML's `ExecutionMode`, as its value.
    """

    def __init__(self, run_id: str) -> None:
        """Load the run and its deployment from ZenML, and call the pipeline's init hook.

        Raises:
            RunStopped: The run was stopped already.
        """
        self._loaded = LoadedRun(run_id)
        if self._loaded.run.status in STOPPED:
            # It was stopped before this sandbox existed.
            raise RunStopped
        self._snapshot = self._loaded.snapshot
        self._stack = self._loaded.stack
        configurations = self._snapshot.step_configurations
        self.graph: Mapping[str, tuple[str, ...]] = {
            name: tuple(step.spec.upstream_steps) for name, step in configurations.items()
        }
        self.done = {n for n, s in self._loaded.run.steps.items() if s.status.is_successful}
        self.failure_mode = self._snapshot.pipeline_configuration.execution_mode.value
        self._stack.orchestrator.run_init_hook(snapshot=self._snapshot)

    def retry_policy(self, name: str) -> tuple[int, float, float]:
        """Return a step's number of retries, the first delay in seconds, and its growth factor."""
        retry = self._snapshot.step_configurations[name].config.retry
        return (retry.max_retries, retry.delay, retry.backoff) if retry else (0, 0, 1)

    def launch(self, name: str) -> bool:
        """Run one step once, and return whether it succeeded.

        Raises:
            Exception: What the step raised.
            RunStopped: The run was stopped.
        """
        step = self._snapshot.step_configurations[name]
        environment = get_runtime_environment(config=step.config, stack=self._stack)
        try:
            with temporary_environment(environment):
                step_run = launch_step(
                    snapshot=self._snapshot,
                    step=step,
                    orchestrator_run_id=self._loaded.orchestrator_run_id,
                    retry=False,
                )
        except (RunStoppedException, StepHeartBeatTerminationException) as error:
            raise RunStopped from error
        return compat.final_record(step_run).status.is_successful

    def cleanup(self) -> None:
        """Call the pipeline's cleanup hook."""
        self._stack.orchestrator.run_cleanup_hook(snapshot=self._snapshot)
