"""Define the ZenML orchestrator that represents modalrun in a stack."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from zenml.enums import ExecutionMode
from zenml.orchestrators import BaseOrchestrator, ContainerizedOrchestrator

from modalrun.run import notes
from modalrun.run.contract import ORCHESTRATOR_RUN_ID, STEP
from modalrun.run.reporting import error_line, log_line
from modalrun.settings import ModalOrchestratorSettings
from modalrun.zenml_api.orchestrator_config import ModalOrchestratorConfig

if TYPE_CHECKING:
    from zenml.config.base_settings import BaseSettings
    from zenml.config.build_configuration import BuildConfiguration
    from zenml.models import PipelineSnapshotBase, PipelineSnapshotResponse


class ModalOrchestrator(BaseOrchestrator):
    """Base of the orchestrator: configuration, settings class, images, hooks and run id.

    In memory it replaces the orchestrator of any stack while `modalrun submit` compiles a pipeline,
    and while the pipeline runs in a sandbox. `modalrun.flavor.orchestrator` adds what a registered
    component does: submit, inspect, stop. `execution.isolation` adds the isolated steps.

    Attributes:
        wants_images: Whether ZenML builds images for it, as for its own orchestrators that run in
            containers. Set only while `compiling.image_builds` builds.
    """

    wants_images = False

    @property
    def config(self) -> ModalOrchestratorConfig:
        """The component's configuration."""
        return cast(ModalOrchestratorConfig, self._config)

    def get_docker_builds(self, snapshot: PipelineSnapshotBase) -> list[BuildConfiguration]:
        """Return the images that ZenML builds: none unless `wants_images`; Modal builds them."""
        if not self.wants_images:
            return []
        # One for the pipeline and one for each step with Docker settings of its own.
        builds: list[BuildConfiguration] = ContainerizedOrchestrator.get_docker_builds(
            self,  # type: ignore[arg-type]
            snapshot,
        )
        return builds

    def should_build_pipeline_image(self, snapshot: PipelineSnapshotBase) -> bool:
        """Always true: the run sandbox uses the pipeline's image even if every step has its own."""
        return True

    @property
    def settings_class(self) -> type[BaseSettings]:
        """Return the class that ZenML validates `orchestrator` settings with."""
        return ModalOrchestratorSettings

    def get_orchestrator_run_id(self) -> str:
        """Return the id that ties the steps in a sandbox to their run.

        Raises:
            RuntimeError: Not inside a sandbox of a run.
        """
        try:
            return os.environ[ORCHESTRATOR_RUN_ID]
        except KeyError:
            raise RuntimeError(f"{ORCHESTRATOR_RUN_ID} is not set.") from None

    @property
    def run_init_cleanup_at_step_level(self) -> bool:
        """Whether ZenML calls the init and cleanup hooks with each step: in a step sandbox.

        If all steps share a process, the runner calls them once.
        """
        return STEP in os.environ

    @classmethod
    def run_init_hook(cls, snapshot: PipelineSnapshotResponse) -> None:
        """Call the pipeline's init hook, if it has one.

        Raises:
            RuntimeError: It has failed, or has tried to end the process (`sys.exit`).
        """
        if snapshot.pipeline_configuration.init_hook_source is None:
            super().run_init_hook(snapshot)
            return
        try:
            with notes.during("hook", "init"):
                super().run_init_hook(snapshot)
        except BaseException as error:
            # ZenML's own exception names no cause.
            cause = error_line(error.__cause__ or error)
            raise RuntimeError(f"The init hook failed: {cause}") from error

    @classmethod
    def run_cleanup_hook(cls, snapshot: PipelineSnapshotResponse) -> None:
        """Call the pipeline's cleanup hook, if it has one; a failure is only logged."""
        try:
            with notes.during("hook", "cleanup"):
                super().run_cleanup_hook(snapshot)
        except BaseException as error:
            # ZenML logs exceptions alone, and no `sys.exit`.
            log_line(f"The cleanup hook failed: {error_line(error)}")

    @property
    def supported_execution_modes(self) -> list[ExecutionMode]:
        """Return all of ZenML's failure modes."""
        return list(ExecutionMode)
