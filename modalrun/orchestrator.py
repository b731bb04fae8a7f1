"""The ZenML orchestrator that stands for modalrun in a stack."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zenml.enums import ExecutionMode
from zenml.orchestrators import (
    BaseOrchestrator,
    BaseOrchestratorConfig,
    ContainerizedOrchestrator,
)

from modalrun.settings import ModalOrchestratorSettings

if TYPE_CHECKING:
    from zenml.config.base_settings import BaseSettings
    from zenml.config.build_configuration import BuildConfiguration
    from zenml.models import PipelineSnapshotBase

ORCHESTRATOR_RUN_ID = "MODALRUN_ORCHESTRATOR_RUN_ID"
"""The variable that carries ZenML's orchestrator run id into a sandbox."""


class ModalOrchestratorConfig(BaseOrchestratorConfig):
    """Configuration of the orchestrator component; it has no fields of its own yet."""

    @property
    def is_synchronous(self) -> bool:
        """`submit` waits for the end of the run."""
        return True

    @property
    def supports_client_side_caching(self) -> bool:
        """Cached steps are found inside the sandbox, next to the artifacts."""
        return False


class ModalOrchestrator(BaseOrchestrator):
    """Stands in a stack, in memory, while a pipeline is compiled for Modal and while it runs there.

    It gives ZenML the settings class to check `orchestrator` settings with, and says how steps
    behave inside a sandbox: all steps of a run share one process, as with ZenML's own `local`
    orchestrator, so hooks run once per run and every execution mode works.

    Attributes:
        wants_images: Whether ZenML is to build images for it, as for ZenML's own orchestrators
            that run in containers. Only while `modalrun.zenml_api.registry` asks it to.
    """

    wants_images = False

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
        """False: the runner calls the init and cleanup hooks once per run."""
        return False

    @property
    def supported_execution_modes(self) -> list[ExecutionMode]:
        """All of ZenML's failure modes."""
        return list(ExecutionMode)
