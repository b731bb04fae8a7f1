"""Define the orchestrator of a registered stack, which runs pipelines as `modalrun submit` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zenml.orchestrators import SubmissionResult
from zenml.stack import StackValidator

from modalrun.flavor import runs
from modalrun.settings import ModalOrchestratorSettings
from modalrun.zenml_api.orchestrator import ModalOrchestrator

if TYPE_CHECKING:
    from zenml.enums import ExecutionStatus
    from zenml.models import PipelineRunResponse, PipelineSnapshotResponse
    from zenml.stack import Stack


class RegisteredOrchestrator(ModalOrchestrator):
    """Submit, inspect and stop the runs of a stack with a registered `modalrun` orchestrator."""

    @property
    def validator(self) -> StackValidator | None:
        """Report all problems that keep a stack from working on Modal's cloud."""
        if self.config.target != "modal":
            return None
        return StackValidator(custom_validation_function=runs.validate)

    def run(
        self,
        snapshot: PipelineSnapshotResponse,
        stack: Stack,
        placeholder_run: PipelineRunResponse | None = None,
    ) -> None:
        """Run a pipeline; one that ZenML's cache completes gets no further than here.

        Args:
            snapshot: The deployment.
            stack: Its stack.
            placeholder_run: The run, if ZenML has created it.

        Raises:
            ModalrunError: As for `modalrun submit`.
        """
        if placeholder_run is None:
            super().run(snapshot, stack, placeholder_run)
            return
        with runs.signals_handled(str(placeholder_run.id)):
            # Compiled with the component's values. `get_settings` would add its target, which is no
            # setting.
            compiled = snapshot.pipeline_configuration.settings.get(f"orchestrator:{self.name}")
            settings = ModalOrchestratorSettings.model_validate(dict(compiled or {}))
            runs.announce(str(placeholder_run.id), self.config.target, snapshot, settings)
            super().run(snapshot, stack, placeholder_run)

    def submit_pipeline(
        self,
        snapshot: PipelineSnapshotResponse,
        stack: Stack,
        base_environment: dict[str, str],
        step_environments: dict[str, dict[str, str]],
        placeholder_run: PipelineRunResponse | None = None,
    ) -> SubmissionResult:
        """Create the run's sandbox, and return a function that follows the run to its end.

        Args:
            snapshot: The deployment, without the steps that ZenML found in its cache.
            stack: Its stack.
            base_environment: The variables with which a sandbox uses ZenML.
            step_environments: Not used: each step's environment is set where it runs.
            placeholder_run: The run, if ZenML has created it.

        Raises:
            ModalrunError: As for `modalrun submit`.
        """
        waiting = runs.submit(self.config.target, snapshot, base_environment, placeholder_run)
        return SubmissionResult(wait_for_completion=waiting)

    def submit_dynamic_pipeline(
        self,
        snapshot: PipelineSnapshotResponse,
        stack: Stack,
        environment: dict[str, str],
        placeholder_run: PipelineRunResponse | None = None,
    ) -> SubmissionResult:
        """Create the run's sandbox, as `submit_pipeline` does; the pipeline's function runs there.

        A run that ZenML resumes gets another sandbox.
        """
        return self.submit_pipeline(snapshot, stack, environment, {}, placeholder_run)

    def fetch_status(
        self, run: PipelineRunResponse, include_steps: bool = False
    ) -> tuple[ExecutionStatus | None, dict[str, ExecutionStatus] | None]:
        """Return the status of a run, derived from ZenML's record and from Modal.

        If the run's sandbox is gone, its record and its steps' are reconciled.
        """
        status, steps = runs.status(run)
        return status, steps if include_steps else None

    def _stop_run(self, run: PipelineRunResponse, graceful: bool = False) -> None:
        """Stop a run by force or gracefully. ZenML has recorded STOPPING before."""
        runs.stop(str(run.id), graceful=graceful)
