"""The ZenML orchestrator that stands for modalrun in a stack."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from zenml.enums import ExecutionMode
from zenml.orchestrators import (
    BaseOrchestrator,
    ContainerizedOrchestrator,
    SubmissionResult,
)
from zenml.stack import StackValidator

from modalrun.run.contract import STEP
from modalrun.settings import ModalOrchestratorSettings
from modalrun.zenml_api.orchestrator_config import ModalOrchestratorConfig

if TYPE_CHECKING:
    from zenml.config.base_settings import BaseSettings
    from zenml.config.build_configuration import BuildConfiguration
    from zenml.config.step_run_info import StepRunInfo
    from zenml.enums import ExecutionStatus
    from zenml.models import (
        PipelineRunResponse,
        PipelineSnapshotBase,
        PipelineSnapshotResponse,
        StepRunResponse,
    )
    from zenml.stack import Stack

    from modalrun.zenml_api.dynamic import Isolation

ORCHESTRATOR_RUN_ID = "MODALRUN_ORCHESTRATOR_RUN_ID"
"""The variable that carries ZenML's orchestrator run id into a sandbox."""


class ModalOrchestrator(BaseOrchestrator):
    """Stands for modalrun in a stack: registered by its flavor, or in memory.

    In memory it replaces the orchestrator of any stack while a pipeline is compiled by `modalrun
    submit`, and while it runs in a sandbox. It gives ZenML the settings class to check
    `orchestrator` settings with, and says how steps behave inside a sandbox: every execution mode
    works, and hooks run once per run where all steps share one process, as with ZenML's own `local`
    orchestrator, or with each step.

    As a registered component it is ZenML's door to the engine behind `modalrun submit`: what
    happens there is in `modalrun.flavor.runs`.

    Attributes:
        wants_images: Whether ZenML is to build images for it, as for ZenML's own orchestrators
            that run in containers. Only while `modalrun.zenml_api.image_builds` asks it to.
        isolation: Runs a dynamic pipeline's isolated steps; only in a run sandbox that can.
    """

    wants_images = False
    isolation: Isolation | None = None

    @property
    def config(self) -> ModalOrchestratorConfig:
        """The component's configuration."""
        return cast(ModalOrchestratorConfig, self._config)

    @property
    def validator(self) -> StackValidator | None:
        """Says everything that keeps a stack from working on Modal's cloud; all of it at once."""
        if self.config.target != "modal":
            return None
        from modalrun.flavor import runs

        return StackValidator(custom_validation_function=runs.validate)

    def submit_pipeline(
        self,
        snapshot: PipelineSnapshotResponse,
        stack: Stack,
        base_environment: dict[str, str],
        step_environments: dict[str, dict[str, str]],
        placeholder_run: PipelineRunResponse | None = None,
    ) -> SubmissionResult:
        """Create the run's sandbox; the result's function follows the run to its end.

        Args:
            snapshot: The deployment, without the steps that ZenML found in its cache.
            stack: Its stack.
            base_environment: The variables by which a sandbox reaches ZenML.
            step_environments: Not used: each step's environment is made where it runs.
            placeholder_run: The run, where ZenML has made it already.

        Raises:
            ModalrunError: As for `modalrun submit`.
        """
        from modalrun.flavor import runs

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

    @property
    def can_run_isolated_steps(self) -> bool:
        """Whether steps get sandboxes of their own: in the run sandbox of a `per_step` run."""
        return self.isolation is not None

    def submit_isolated_step(self, step_run_info: StepRunInfo, environment: dict[str, str]) -> None:
        """Create a sandbox for a step of a dynamic pipeline.

        Args:
            step_run_info: The step and its record.
            environment: Not used: the sandbox reaches ZenML as this one does, and makes the step's
                own environment itself.

        Raises:
            ModalrunError: A setting of the step is wrong, or Modal refuses the sandbox.
        """
        self._isolation.submit(step_run_info)

    def get_isolated_step_status(self, step_run: StepRunResponse) -> ExecutionStatus:
        """Whether the sandbox of a step runs, and how it ended."""
        return self._isolation.status(step_run)

    def wait_for_isolated_step(self, step_run: StepRunResponse) -> ExecutionStatus:
        """Wait for the end of a step's sandbox. (ZenML's own would ask again and again.)"""
        return self._isolation.status(step_run, wait=True)

    def stop_isolated_step(self, step_run: StepRunResponse) -> None:
        """End a step's sandbox now."""
        self._isolation.stop(step_run)

    @property
    def _isolation(self) -> Isolation:
        if self.isolation is None:
            raise RuntimeError("Isolated steps are run from the run sandbox alone.")
        return self.isolation

    def fetch_status(
        self, run: PipelineRunResponse, include_steps: bool = False
    ) -> tuple[ExecutionStatus | None, dict[str, ExecutionStatus] | None]:
        """What is true of a run, by ZenML's record and by Modal.

        The record of a run whose sandbox is gone is set right, with all its steps.
        """
        from modalrun.flavor import runs

        status, steps = runs.status(run)
        return status, steps if include_steps else None

    def _stop_run(self, run: PipelineRunResponse, graceful: bool = False) -> None:
        """End a run by force, or ask it to end; for ZenML, which has recorded STOPPING already."""
        from modalrun.flavor import runs

        runs.stop(str(run.id), graceful=graceful)

    def get_docker_builds(self, snapshot: PipelineSnapshotBase) -> list[BuildConfiguration]:
        """The images that ZenML builds: none, since Modal does, unless `wants_images`."""
        if not self.wants_images:
            return []
        # One for the pipeline and one for each step with Docker settings of its own.
        builds: list[BuildConfiguration] = ContainerizedOrchestrator.get_docker_builds(
            self,  # type: ignore[arg-type]
            snapshot,
        )
        return builds

    def should_build_pipeline_image(self, snapshot: PipelineSnapshotBase) -> bool:
        """True: the run sandbox has the pipeline's image, also where every step has its own."""
        return True

    @property
    def settings_class(self) -> type[BaseSettings]:
        """The class that ZenML validates `orchestrator` settings with."""
        return ModalOrchestratorSettings

    def get_orchestrator_run_id(self) -> str:
        """The id that ties the steps in a sandbox to their run.

        Raises:
            RuntimeError: Not inside a sandbox of a run.
        """
        try:
            return os.environ[ORCHESTRATOR_RUN_ID]
        except KeyError:
            raise RuntimeError(f"{ORCHESTRATOR_RUN_ID} is not set.") from None

    @property
    def run_init_cleanup_at_step_level(self) -> bool:
        """Whether ZenML calls the init and cleanup hooks with each step.

        It does in a step sandbox. Where all steps share a process the runner calls them, once.
        """
        return STEP in os.environ

    @property
    def supported_execution_modes(self) -> list[ExecutionMode]:
        """All of ZenML's failure modes."""
        return list(ExecutionMode)
